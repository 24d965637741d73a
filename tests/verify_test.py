"""verify passes on a sound step and fails on each planted bug."""

import pytest

from simclr_jax import verify
from support.runs import TINY, status_of

SUPERVISED = "--config.objective.name=supervised"
MINED = ("--config.loss.name=nt_logistic", "--config.loss.mining=semi_hard")


def run(capsys, *flags):
    status = status_of(verify.main, *TINY, "--images_per_device=2", "--devices=8", *flags)
    printed = capsys.readouterr()
    return status, printed.out.splitlines(), printed.err.splitlines()


@pytest.mark.slow
def test_a_sound_step_passes_and_the_table_names_what_was_compared(capsys):
    status, out, err = run(capsys)
    assert (status, err) == (0, [])
    assert out[0].startswith("8 cpu devices against one, 16 images of 8 px")
    compared = ["loss", "gradients", "update", "batch-norm statistics"]
    assert [line.split("  ")[0] for line in out[2:-1]] == compared
    assert all("ok" in line for line in out[2:-1])
    assert "verdict" in out[-1]


@pytest.mark.parametrize(
    ("bug", "seen_in"),
    [
        pytest.param("local_negatives", {"loss", "gradients", "update"}, marks=pytest.mark.slow),
        pytest.param(
            "local_bn",
            {"loss", "gradients", "update", "batch-norm statistics"},
            marks=pytest.mark.slow,  # step_test holds that batch norm per device is seen
        ),
        pytest.param("mean_loss", {"loss", "gradients", "update"}, marks=pytest.mark.slow),
    ],
)
def test_a_planted_bug_fails(capsys, bug, seen_in):
    status, out, (line,) = run(capsys, f"--sabotage={bug}")
    assert status == 1
    assert {row.split("  ")[0] for row in out if "FAILED" in row} == seen_in
    assert "is not the one-device step" in line


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--sabotage=nothing"], "must be one of local_negatives, local_bn, mean_loss"),
        (["--sabotage=local_negatives", SUPERVISED], "must be one of local_bn, mean_loss for"),
        (["--devices=1"], "--devices=1: must be at least 2"),
        (["--devices=900"], "--devices=900: JAX has 8"),
        (["--images_per_device=1"], "--images_per_device=1"),
    ],
)
def test_bad_flags_are_refused(mesh8, capsys, flags, said):
    status, _, (line,) = run(capsys, *flags)
    assert status == 2
    assert said in line


@pytest.mark.slow
def test_local_negatives_are_found_where_negatives_are_mined(capsys):
    status, out, _ = run(capsys, *MINED, "--sabotage=local_negatives")
    assert status == 1
    assert sum("FAILED" in row for row in out) == 3


@pytest.mark.slow
def test_a_supervised_step_is_verified_and_its_bugs_are_found(capsys):
    assert run(capsys, SUPERVISED)[0] == 0
    for bug, found in (("local_bn", 4), ("mean_loss", 3)):
        status, out, _ = run(capsys, SUPERVISED, f"--sabotage={bug}")
        assert status == 1
        assert sum("FAILED" in row for row in out) == found


@pytest.mark.slow
def test_the_floor_of_microbatches_hides_no_bug(capsys):
    """An order that moves images between microbatches changes batch norm as much as the bug."""
    status, out, _ = run(capsys, "--config.train.microbatches=2", "--sabotage=local_bn")
    assert status == 1
    assert sum("FAILED" in row for row in out) == 4
