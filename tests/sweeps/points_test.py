"""The points of a sweep: their configs, what they start from, and what is refused."""

import re

import pytest
from ml_collections import FrozenConfigDict

from simclr_jax.config import overrides
from simclr_jax.errors import UserError
from simclr_jax.sweeps import points
from support import sweeps


def test_each_point_is_a_run_with_each_seed(tmp_path):
    found = sweeps.points(tmp_path, seeds=(0, 3))
    names = ["hot-seed0", "cold-seed0", "on-seed0", "hot-seed3", "cold-seed3", "on-seed3"]
    assert [point.name for point in found] == names
    assert [point.index for point in found] == [*range(6)]
    cold = found[4]
    assert (cold.config.seed, cold.config.data.label_seed, cold.seed, cold.of) == (3, 3, 3, "cold")
    assert cold.config.loss.temperature == 0.1
    assert cold.config.model == found[0].config.model
    assert (cold.at, [*cold.measures]) == ((0.1, "random"), ["knn", "entropy"])
    assert cold.folder == tmp_path / "points/cold-seed3"


def test_a_point_starts_from_another_of_its_seed(tmp_path):
    found = sweeps.points(tmp_path, seeds=(0, 3))
    assert [point.needs for point in found] == [(), (), (0,), (), (), (3,)]
    assert found[5].config.init.run == str(tmp_path / "points/hot-seed3")


def test_what_a_run_computes_does_not_depend_on_where_the_sweep_is(tmp_path):
    """A folder that was moved is no reason to train again, nor is a key that changes no number."""
    there = sweeps.points(tmp_path / "a")
    moved = sweeps.points(tmp_path / "b", tiny={"log.every_steps": 7})
    assert [point.computes for point in there] == [point.computes for point in moved]
    assert there[2].computes["init.run"] == "point:hot"
    other = sweeps.points(tmp_path / "a", tiny={"optim.lr": 7.0})
    assert other[0].computes != there[0].computes


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"seeds": ()}, "config.seeds=(): must be different whole numbers from 0"),
        ({"seeds": (1, 1)}, "config.seeds=(1, 1): must be different"),
        ({"seeds": (-1,)}, "config.seeds=(-1,): must be different"),
        ({"seeds": (0.5,)}, "config.seeds=(0.5,): must be different"),
        ({"seeds": ("a",)}, "config.seeds=('a',): must be different"),
        ({"figure.kind": "pie"}, "config.figure.kind='pie': must be one of heatmap, lines, bars"),
        ({"points": {}}, "config.points={}: must be at least one"),
        ({"measures": {}}, "config.measures={}: must be at least one"),
        ({"points.cold.measures": ("knn", "x")}, "must be some of knn, entropy"),
        ({"points.cold.paper": {"x": 1.0}}, "config.points.cold.paper=('x',): must be some of"),
        ({"points.cold.at": (0.5, "random")}, "must be another place than hot's"),
        ({"points.cold.run.optim": {"rate": 1}}, "config.points.cold.run.optim.rate=1: unknown"),
        ({"points.cold.run.loss.temperature": -1.0}, "point cold-seed0: config.loss.temperature=-"),
        ({"points.cold.run.init": {"run": "point:on"}}, "must be point:NAME of a point before"),
        ({"points.on.run.init.run": "point:warm"}, "before this one (hot, cold)"),
        ({"points.on.run.init.run": "point:on"}, "before this one (hot, cold)"),
        ({"run.train.batch_size": 100}, "config.train.batch_size=100: must be a multiple of"),
    ],
)
def test_what_is_no_study_is_refused_by_its_key(tmp_path, values, said):
    sweep = overrides.changed(sweeps.study(), values)
    with pytest.raises(UserError, match=re.escape(said)):
        points.expand(sweep, tmp_path, devices=8)


def test_a_name_that_is_no_folder_is_refused(tmp_path):
    sweep = sweeps.study()
    sweep.points["a/b"] = sweep.points.cold
    with pytest.raises(UserError, match=r"config\.points='a/b': must be named by letters"):
        points.expand(sweep, tmp_path, devices=1)


def test_what_is_no_sweep_is_told_from_one():
    with pytest.raises(UserError, match=r"--config: lacks axes, .*; is it a sweep's"):
        points.check(FrozenConfigDict({"points": {}}))
