"""What is read from a compiled program, on programs whose content is known."""

import importlib.util
import json
import subprocess
import sys

import pytest

from simclr_jax import plan
from simclr_jax.config import overrides
from simclr_jax.tpu import compiled
from support import tpu_worker


def test_the_compilers_refusal_says_what_the_program_needs():
    for refusal, needed in (
        ("Ran out of memory in memory space hbm. Used 17.50G of 15.75G hbm.", 17.5),
        ("memory required for HLO temporaries (38.25G) exceeds available HBM (15.75G).", 38.25),
    ):
        assert compiled.used_memory(f"RESOURCE_EXHAUSTED: {refusal}") == needed * 2**30
    assert compiled.used_memory("INTERNAL: something else") is None


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the TPU compiler")
def test_the_step_compiles_for_a_slice_with_a_gather_a_pass():
    """On v5e:2x4: embeddings forward, row statistics backward; else gradients and batch norm."""
    config = overrides.load(["--config=cifar10", "--config.train.batch_size=64"])
    counts = {"data.num_examples": 50000, "data.num_classes": 10, "model.width": 0.25}
    config = overrides.changed(config, counts)
    measured = plan.compile_step(config, "v5e:2x4")
    assert (measured["chips"], measured["hosts"]) == (8, 1)
    moved = {each["kind"]: each for each in measured["collectives"]}
    assert set(moved) <= {"all-gather", "all-reduce"}
    gathered = 4 * 2 * 64 * (config.model.head_dim + 2)
    parameters = measured["memory"]["params"]
    assert sum(each["bytes"] for each in moved.values()) < 1.3 * parameters + gathered
    if "all-gather" in moved:  # small ones may become sums
        assert moved["all-gather"]["bytes"] == gathered
    assert 0.9 < measured["flops"] / measured["analytic_flops"] < 1.3
    total = measured["memory"]["total"]
    config = overrides.changed(config, {"train.microbatches": 4})
    assert plan.compile_step(config, "v5e:2x4")["memory"]["total"] < 0.7 * total


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the TPU compiler")
@pytest.mark.parametrize(
    ("microbatches", "shard_state", "sums"), [(4, False, "all-reduce"), (1, True, "reduce-scatter")]
)
def test_gradients_are_summed_once(microbatches, shard_state, sums):
    """Not once a microbatch; where the optimizer's state is split, each chip gets its part only."""
    command = [sys.executable, tpu_worker.__file__, str(microbatches), str(shard_state)]
    child = subprocess.run(command, capture_output=True, text=True, check=True)
    moved = {each["kind"]: each["bytes"] for each in json.loads(child.stdout)}
    inputs, inner, outputs = tpu_worker.WIDTHS
    weights = inputs * inner + inner * outputs
    size = 4 if microbatches > 1 else 2  # float32 where they are added up, else bfloat16
    assert size * weights <= moved[sums] < 1.1 * size * weights
    if shard_state:
        assert moved["all-reduce"] < 0.1 * weights
        assert 4 * weights <= moved["all-gather"] < 4.1 * weights  # the new parameters


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the TPU compiler")
def test_one_chip_has_room_for_two_batches_of_images():
    config = overrides.load(["--config=digits", "--config.train.batch_size=64"])
    counts = {"data.num_examples": 1000, "data.num_classes": 10, "model.width": 1 / 16}
    config = overrides.changed(config, counts)
    measured = plan.compile_step(config, "v5e:1x1")
    assert (measured["chips"], measured["hosts"]) == (1, 1)
    images, size = 64, config.data.image_size
    one_batch = images * (2 * size * size * 3 + 4 + 2 * 4)  # uint8 views, labels and blur sigmas
    assert measured["memory"]["images"] == 2 * one_batch
