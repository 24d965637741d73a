"""Where a run goes on, and when it does not, with checkpoints that only have numbers."""

from types import SimpleNamespace

import chex
import jax.numpy as jnp
import pytest
from etils import epath

from simclr_jax import state as states
from simclr_jax.config import overrides, record
from simclr_jax.config.parts import Intervals
from simclr_jax.errors import UserError
from simclr_jax.run.resume import resume
from simclr_jax.state import TrainState

CONFIG = overrides.load(["--config=digits", "--config.log.every_steps=2"])
IMAGES = {
    "train": {"split": "train", "images": 40, "names": "a", "sizes": "b", "bytes": "c"},
    "eval": {"split": "test", "images": 10, "names": "d", "sizes": "e", "bytes": "f"},
}


class Checkpoints:
    """One good checkpoint, of a run with this config; or none."""

    def __init__(self, step=None, state=None, config=CONFIG, images=IMAGES):
        self.step, self.state, self.config, self.images = step, state, config, images

    def steps(self):
        return [] if self.step is None else [self.step]

    def restore_newest(self, shapes, check):
        if self.step is None:
            return None
        chex.assert_trees_all_equal_shapes_and_dtypes(shapes, self.state)
        images = {} if self.images is None else {"fingerprints": self.images}
        check(record.describe(self.config, device="cpu", devices=1, **images))
        return self.step, self.state


def state_at(step):
    w = jnp.full(3, float(step))
    return TrainState(jnp.asarray(step, jnp.int32), {"w": w}, {}, {"w": jnp.full(16, 2.0 * step)})


@pytest.fixture
def resumed(tmp_path, mesh1, mesh8):
    def run(
        checkpoints, reached, *, config=CONFIG, save=4, images=IMAGES, allow=False, split=False
    ):  # fmt: skip
        """`reached`: the steps that have rows."""
        intervals = Intervals(total=20, evaluate=None, save=save, log=2)
        built = SimpleNamespace(
            initial=lambda: state_at(0), first=lambda: state_at(0), mesh=mesh8 if split else mesh1,
            intervals=intervals,
        )  # fmt: skip
        built.placed = states.shardings(built.initial, built.mesh, divide=split)
        rows = [{"step": step} for step in reached]
        return resume(
            config, built, epath.Path(tmp_path), checkpoints, rows, images, allow_change=allow
        )  # fmt: skip

    return run


def test_where_there_is_nothing_it_begins(resumed, capsys):
    step, state, rows = resumed(Checkpoints(), [])
    assert (step, rows) == (0, [])
    chex.assert_trees_all_equal(state, state_at(0))
    assert capsys.readouterr().out == ""


def test_a_checkpoint_is_gone_on_from_and_rows_beyond_it_are_not_its(resumed, capsys):
    step, state, rows = resumed(Checkpoints(8, state_at(8)), [2, 4, 6, 8, 10])
    assert step == 8
    assert [row["step"] for row in rows] == [2, 4, 6, 8]
    chex.assert_trees_all_equal(state, state_at(8))
    assert capsys.readouterr().out == "resumed from step 8\n"


def test_a_whole_checkpoint_is_gone_on_from_with_the_optimizers_state_in_parts(resumed):
    _, state, _ = resumed(Checkpoints(8, state_at(8)), [2, 4, 6, 8], split=True)
    chex.assert_trees_all_equal(state, state_at(8))
    assert [part.data.shape for part in state.opt_state["w"].addressable_shards] == [(2,)] * 8
    assert state.params["w"].is_fully_replicated


@pytest.mark.parametrize(("reached", "first"), [([], 1), ([2, 4], 5), ([2, 4, 6], None)])
def test_rows_that_end_long_before_the_checkpoint_are_missed(resumed, warnings, reached, first):
    """A row is written every two steps."""
    resumed(Checkpoints(8, state_at(8)), reached)
    assert len(warnings()) == (first is not None)
    assert all(f"has no rows from step {first} to the checkpoint's" in line for line in warnings())


def test_rows_that_no_checkpoint_had_to_follow_are_trained_again(resumed, capsys):
    step, _, rows = resumed(Checkpoints(), [2, 4, 6, 8])
    assert (step, rows) == (0, [])
    assert "its 4 steps are trained again" in capsys.readouterr().out


def test_a_checkpoint_that_must_have_been_there_is_missed(resumed):
    """Saved every four steps: after the ninth, the first one is complete."""
    with pytest.raises(UserError, match="reaches step 9, yet there is no checkpoint"):
        resumed(Checkpoints(), [9])


def test_a_run_whose_checkpoints_were_all_set_aside_does_not_begin_again(resumed, tmp_path):
    (tmp_path / "damaged").mkdir()
    with pytest.raises(UserError, match="yet there is no checkpoint"):
        resumed(Checkpoints(), [2])


def test_the_config_may_change_where_that_is_said(resumed, capsys):
    checkpoints = Checkpoints(8, state_at(8))
    changed = overrides.changed(CONFIG, {"loss.temperature": 0.7})
    with pytest.raises(UserError, match=r"loss\.temperature=0\.7 \(the run has 0\.5\)"):
        resumed(checkpoints, [8], config=changed)
    assert resumed(checkpoints, [8], config=changed, allow=True).step == 8
    assert (
        "changed since the run was last started: config.loss.temperature\n"
        in capsys.readouterr().out
    )


def test_another_network_is_refused_whatever_is_said(resumed):
    other = overrides.changed(CONFIG, {"model.head_dim": 7})
    with pytest.raises(UserError, match=r"model\.head_dim=7 \(the run has 64\)"):
        resumed(Checkpoints(8, state_at(8)), [8], config=other, allow=True)


def others(use, **parts):
    return {**IMAGES, use: {**IMAGES[use], **parts}}


@pytest.mark.parametrize(
    ("images", "line"),
    [
        (others("train", names="other"), "the names or the order of the training images; put"),
        (
            others("train", images=39),
            "the number of the training images",
        ),
        (
            others("train", bytes="other"),
            "the content (of 64 that are compared) of the training images",
        ),
        (others("eval", sizes="other"), "the sizes of the files of the evaluation images"),
    ],
)
def test_other_images_are_refused_by_what_differs(resumed, images, line):
    with pytest.raises(UserError) as error:
        resumed(Checkpoints(8, state_at(8)), [8], images=images)
    assert line in str(error.value)


def test_images_that_are_gone_are_told_and_not_the_keys_that_count_them(resumed):
    """Nobody has given these keys, so that nobody can set them back."""
    counted = overrides.changed(CONFIG, {"data.num_examples": 39, "data.num_classes": 9})
    stored = overrides.changed(CONFIG, {"data.num_examples": 40, "data.num_classes": 10})
    with pytest.raises(UserError, match=r"on other images \(40 training images, now 39, 10 eval"):
        resumed(
            Checkpoints(8, state_at(8), config=stored), [8], config=counted,
            images=others("train", images=39),
        )  # fmt: skip
    split = overrides.changed(counted, {"data.train_split": "train[:39]"})
    with pytest.raises(UserError, match=r"set back config.data.num_classes=9 \(the run has 10\)"):
        resumed(
            Checkpoints(8, state_at(8), config=stored), [8], config=split,
            images=others("train", images=39),
        )  # fmt: skip


def test_other_images_are_gone_on_with_where_that_is_allowed_and_their_order_is_the_same(
    resumed, capsys
):
    found = others("train", bytes="other")
    assert resumed(Checkpoints(8, state_at(8)), [8], images=found, allow=True).step == 8
    assert "started: the content (of 64" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"back, or use another workdir"):
        resumed(Checkpoints(8, state_at(8)), [8], images=others("train", names="x"), allow=True)


def test_a_run_without_a_fingerprint_goes_on_with_a_line(resumed, capsys):
    assert resumed(Checkpoints(8, state_at(8), images=None), [8]).step == 8
    assert "whether they are the same is not known" in capsys.readouterr().out
