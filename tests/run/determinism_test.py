"""The flags that a GPU needs to repeat itself, as text: there is no GPU here."""

import os

import pytest

from simclr_jax.errors import UserError
from simclr_jax.run import determinism
from support import commands

BOTH = "--xla_gpu_deterministic_ops=true --xla_gpu_autotune_level=0"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("", BOTH),
        ("--xla_dump_to=x", f"--xla_dump_to=x {BOTH}"),
        (BOTH, BOTH),
        ("--xla_gpu_deterministic_ops", "--xla_gpu_deterministic_ops --xla_gpu_autotune_level=0"),
        ("--xla_gpu_autotune_level=4 --xla_gpu_autotune_level=0",
         "--xla_gpu_autotune_level=4 --xla_gpu_autotune_level=0 --xla_gpu_deterministic_ops=true"),
    ],
)  # fmt: skip
def test_the_flags_are_added_to_those_that_are_given(given, expected):
    assert determinism.with_gpu_flags(given) == expected


@pytest.mark.parametrize(
    "given", ["--xla_gpu_autotune_level=4", "--xla_gpu_deterministic_ops=false"]
)
def test_flags_that_contradict_are_named(given):
    with pytest.raises(UserError, match=f"train.deterministic=True: .* XLA_FLAGS has {given};"):
        determinism.with_gpu_flags(given)


def test_they_are_set_where_that_is_asked_for_alone(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    determinism.ask_for(False)
    assert os.environ["XLA_FLAGS"] == ""
    determinism.ask_for(True)
    assert os.environ["XLA_FLAGS"] == BOTH


@pytest.mark.slow
def test_xla_knows_the_flags_and_jax_has_not_read_them_before():
    """XLA ends a process at once that gives it an unknown flag, when it reads them."""
    code = "import jax\nfrom simclr_jax import train\n{}\nprint(jax.device_count())"
    asked = "from simclr_jax.run import determinism\ndeterminism.ask_for(True)"
    out, _ = commands.finished(commands.start("-c", code.format(asked)))
    assert out == "1\n"
    asked += "\nimport os\nos.environ['XLA_FLAGS'] += ' --xla_gpu_no_such_flag=1'"
    process = commands.start("-c", code.format(asked))
    process.communicate(timeout=240)
    assert process.returncode != 0
