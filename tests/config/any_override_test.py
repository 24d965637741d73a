"""Any override at all: the run can start, or the status is 2 and one line names the key."""

import re
from functools import lru_cache

import chex
import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simclr_jax import cli
from simclr_jax import mesh as meshes
from simclr_jax.config import constraints, default, overrides, parts, sources
from simclr_jax.data import splits
from simclr_jax.run import teacher

KEYS = sorted(overrides.keys(default.get_config()))
ALLOWED = {
    "data.name": ["digits", "folder", "nowhere"],
    "data.transfer_dtype": ["uint8", "float32"],
    "augment.ops": ["('crop',)", "()", "('crop', 'crop')", "('warp',)", "(crop,),(crop,sobel)"],
    "augment.policy": ["autoaugment", "randaugment", "trivialaugment"],
    "augment.crop_area": ["(0.1, 0.5)", "(0.5, 0.1)", "(0.1,)"],
    "model.depth": ["18", "34", "19"],
    "model.stem": ["small", "imagenet", "auto"],
    "model.dtype": ["float32", "bfloat16", "float16"],
    "model.head": ["none", "linear", "nonlinear"],
    "model.remat": ["none", "block", "stage"],
    "loss.name": ["nt_xent", "nt_logistic", "margin_triplet", "dcl", "hinge"],
    "loss.mining": ["none", "semi_hard", "hard"],
    "optim.name": ["lars", "momentum", "adam", "adamw", "sgd"],
    "optim.lr_scaling": ["linear", "sqrt", "none"],
    "train.on_nonfinite": ["stop", "skip"],
    "train.microbatch_norm": ["per_microbatch", "running"],
}
ANY = st.one_of(
    st.integers(-3, 300).map(str),
    st.sampled_from(["8", "16", "64", "1", "2", "0.25", "0.5", "1.5"]),
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["", "None", "True", "nan", "inf", "()", "[1]", "{}", "1e400", "a=b", "--x"]),
    st.text(st.characters(codec="ascii"), max_size=8),
)


@st.composite
def some_overrides(draw):
    found = []
    for key in draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=3, unique=True)):
        values = st.sampled_from(ALLOWED[key]) | ANY if key in ALLOWED else ANY
        found.append(f"--config.{key}={draw(values)}")
    return found


def start(values, config):
    """All that a run does before it makes its workdir, and the shapes of its first step."""
    del values
    constraints.check_run(config, devices=jax.device_count())
    source, _ = sources.open_splits(config)
    config = parts.with_counts(config, source)
    trace(config, parts.build(config, meshes.make(), teacher.load(config, {}).teacher))
    STARTED.append(1)


def trace(config, built):
    if config.model.depth > 18 or config.data.image_size > 64 or len(STARTED) >= 40:
        return
    size, n = config.data.image_size, config.train.batch_size
    state = jax.eval_shape(built.initial)
    batch = {
        "image": jax.ShapeDtypeStruct((n, 2, size, size, 3), config.data.transfer_dtype),
        "label": jax.ShapeDtypeStruct((n,), np.int32),
        "blur_sigma": jax.ShapeDtypeStruct((n, 2), np.float32),
    }
    after, _ = jax.eval_shape(built.jitted, state, batch, built.objective)
    chex.assert_trees_all_equal_shapes_and_dtypes(after, state)


STARTED: list[int] = []


@pytest.mark.slow
def test_any_override_starts_a_run_or_is_named(monkeypatch, capsys):
    monkeypatch.setattr(splits, "Digits", lru_cache(splits.Digits))

    @settings(
        max_examples=500, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck]
    )
    @given(flags=some_overrides())
    def check(flags):
        status = cli.run(
            start, doc="", define=lambda values: None, argv=["--config=digits", *flags]
        )
        err = capsys.readouterr().err.strip().splitlines()
        if status == 0:
            return
        assert status == cli.USER_ERROR, (flags, err)
        assert "Traceback" not in "".join(err)
        lines = [line for line in err if "warning" not in line.lower()]
        named = re.findall(r"config\.(\w+(?:\.\w+)*)", lines[-1])
        assert {*named} & {*KEYS}, (flags, err)

    check()
    assert len(STARTED) > 40
