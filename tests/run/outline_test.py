"""What a run is, in words, before any step of it."""

import jax
import pytest

from simclr_jax import state as states
from simclr_jax.config import overrides, parts
from simclr_jax.data.digits import Digits
from simclr_jax.data.readable import Readable
from simclr_jax.run import outline
from support.runs import TINY


@pytest.fixture(scope="module")
def images():
    train, test = Digits("train"), Digits("test")
    train.split, test.split = "train", "test"
    return outline.Images(*(Readable(each, on_bad_image="error") for each in (train, test)))


def test_rows_are_aligned_and_wrapped():
    words = " ".join(["word"] * 30)
    lines = outline.text([("config", f"digits\n  {words}"), ("data", "x" * 100)]).splitlines()
    assert lines[0] == "config     digits"
    assert lines[1].startswith("             word word")
    assert lines[2].startswith("               word")
    assert all(len(line) <= outline.WIDTH for line in lines[:3])
    assert lines[-2:] == ["data", " " * 11 + "x" * 100] or lines[-1] == f"data       {'x' * 100}"


def test_the_keys_that_are_not_the_default_have_both_values():
    config = overrides.load(["--config=digits", "--config.seed=3"])
    first, *rest = outline.different(config).splitlines()
    assert first == f"{len(rest)} keys are not the default:"
    told = [line.split() for line in rest]
    assert ["model.depth", "50", "→", "18"] in told
    assert ["seed", "0", "→", "3"] in told
    assert "train.steps" not in {key for key, *_ in told}


def test_a_config_of_defaults_says_so():
    from simclr_jax.config import default

    assert outline.different(default.get_config()) == "all keys have their defaults"


def test_what_was_left_open_is_told_and_what_was_given_is_not(images):
    given = overrides.load(["--config=digits", "--config.data.num_examples=None"])
    config = parts.with_counts(given, images.train)
    told = dict(line.split() for line in outline.guessed(given, config, images))
    assert told == {
        "augment.colour_on": "host", "data.eval_split": "test", "data.num_examples": "1437",
        "data.views": "2", "eval.batch_size": "128", "model.stem": "small",
    }  # fmt: skip


def test_the_outline_of_a_run_counts_what_it_trains(images, mesh8):
    given = overrides.load([*TINY, "--config.train.steps=40", "--config.checkpoint.keep=2"])
    config = parts.with_counts(given, images.train)
    built = parts.build(config, mesh8)
    state = jax.eval_shape(built.initial)
    told = dict(outline.planned("digits", given, config, images, built, state, 30))
    counts = {k: sum(x.size for x in jax.tree.leaves(v)) for k, v in state.params.items()}
    assert f" {sum(counts.values()):,} parameters (" in told["network"]
    assert f"encoder {counts['encoder']:,}" in told["network"]
    assert f"classifier {counts['classifier']:,}" in told["network"]
    assert "40 steps of 16 images" in told["run"]
    assert "goes on from step 30: 10 steps are left" in told["run"]
    assert "\n8 cpu, 2 images each" in told["run"]
    each = states.nbytes(state)
    assert f"a checkpoint takes {outline.size(each)}; 1 is kept" in told["disk"]
