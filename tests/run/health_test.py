"""What a run's rows give away."""

import math

import numpy as np
import pytest

from simclr_jax.errors import DivergedError
from simclr_jax.losses import LOSSES
from simclr_jax.run.health import WINDOW, Health, Start
from simclr_jax.store.rows import as_json


def row(step, loss=5.0, similarity=0.1, rank=20.0, **more):
    return {
        "step": step, "loss": loss, "contrastive_loss": loss, "grad_norm": 1.0,
        "learning_rate": 0.3, "mean_similarity": similarity, "effective_rank": rank, **more,
    }  # fmt: skip


def health(**changes):
    start = Start(
        "contrastive_loss", 10.0, "2·log(2B - 1)", "embeddings which are all equally similar"
    )
    options = {"start": start, "patience": 50, "allowed": 0, "skipped": 0}
    return Health(**{**options, **changes})


@pytest.mark.parametrize(
    ("ill", "expected"),
    [
        ({"loss": 9.9}, "that of embeddings which are all equally similar"),
        ({"similarity": 0.999}, "all embeddings have become the same"),
        ({"rank": 1.1}, "collapsed to a line"),
    ],
)
def test_an_ill_run_is_told_once_and_not_before_its_patience_ends(warnings, ill, expected):
    watch = health()
    for step in range(1, 50):
        watch.judge(row(step, **ill), finite=True)
    assert not warnings()
    for step in range(50, 200):
        watch.judge(row(step, **ill), finite=True)
    assert len(warnings()) == 1
    assert expected in warnings()[0]
    assert "step 50:" in warnings()[0]


@pytest.mark.parametrize(
    ("loss", "where"), [(9.8, "still near"), (10.2, "still near"), (10.4, "above")]
)
def test_a_stuck_loss_is_a_mean_over_steps_and_near_its_start_or_above(loss, where):
    told = []
    watch = health(tell=told.append)
    for step in range(1, 51):
        watch.judge(row(step, loss=loss + step % 2 - 0.5), finite=True)
    (warned,) = told
    assert (warned.kind, warned.step) == ("stuck", 50)
    assert warned.line.startswith(
        f"step 50: the contrastive loss, a mean over steps 31 to 50, is {loss:.2f}, {where} 2·log("
    )


def test_a_mean_over_some_steps_says_how_many():
    told = []
    watch = health(tell=told.append)
    for step in range(5, 105, 5):
        watch.judge(row(step, loss=10.4), finite=True)
    assert "a mean over 20 of steps 5 to 100, is 10.40, above" in told[0].line


def test_the_loss_of_images_that_look_alike_is_known_of_two_losses(rng):
    """Others may be as large in a good run; a number is that of the loss itself."""
    alike = np.tile(rng.normal(size=5).astype(np.float32), (2, 48, 1))
    for name, formula in (("nt_xent", "2·log(2B - 1)"), ("dcl", "2·log(2B - 2)")):
        start = Start.of_pairs(name, 48)
        assert start.formula == formula
        assert start.loss == pytest.approx(float(LOSSES[name](*alike, temperature=0.1)[0]), 1e-5)
    for name in {*LOSSES} - {"nt_xent", "dcl"}:
        assert Start.of_pairs(name, 48) is None


def test_a_loss_without_a_known_start_is_never_stuck_but_may_collapse(warnings):
    watch = health(start=None)
    for step in range(1, 60 + WINDOW):
        watch.judge(row(step, loss=9.9), finite=True)
    assert not warnings()
    for step in range(60 + WINDOW, 60 + 3 * WINDOW):
        watch.judge(row(step, loss=9.9, similarity=0.999), finite=True)
    assert "all embeddings have become the same" in warnings()[0]


def test_a_healthy_run_is_left_alone(warnings):
    watch = health()
    for step in range(1, 60 + WINDOW):
        watch.judge(row(step), finite=True)
    assert not warnings()


def test_the_first_number_that_is_not_finite_ends_the_run():
    watch = health()
    watch.judge(row(6, loss=7.5), finite=True)
    with pytest.raises(DivergedError) as error:
        watch.judge(row(7, loss=math.nan), finite=False)
    line = str(error.value)
    assert line.startswith("step 7: loss is nan at learning rate 0.3; step 6 had loss 7.5, grad_")
    assert watch.last["step"] == 6


def test_some_updates_may_be_skipped_and_then_no_more(warnings):
    watch = health(allowed=3, skipped=1)
    for step in (5, 6):
        assert not watch.judge(row(step, loss=math.inf), finite=False)
    assert watch.skipped == 3
    assert warnings()[-1].endswith("update skipped (3 of 3)")
    with pytest.raises(DivergedError, match="after 3 skipped updates"):
        watch.judge(row(7), finite=False)


def test_an_evaluation_that_is_not_finite_cannot_be_skipped():
    with pytest.raises(DivergedError, match="eval_loss is nan"):
        health(allowed=3).judge(row(5, eval_loss=math.nan), finite=True)


def test_json_has_no_nan():
    assert as_json({"loss": math.nan, "step": 3, "x": 1.5}) == {"loss": None, "step": 3, "x": 1.5}
