"""What a folder has that is not of the study."""

import pytest

from simclr_jax.config import default, record
from simclr_jax.config.overrides import changed
from simclr_jax.errors import UserError
from simclr_jax.sweeps import contents
from support import sweeps


def begin(folder, config):
    folder.mkdir(parents=True)
    record.write(folder, record.describe(config, device="cpu", devices=1, fingerprints={}))


def test_a_runs_folder_is_refused(tmp_path):
    begin(tmp_path / "run", default.get_config())
    with pytest.raises(UserError, match=r"--workdir=.*/run: is the folder of a run"):
        contents.check([], tmp_path / "run")


def test_a_study_with_other_keys_is_refused(tmp_path):
    points = sweeps.points(tmp_path)
    contents.check(points, tmp_path)
    for point in points:  # A run fills in its numbers of images and classes.
        begin(
            point.folder, changed(point.config, {"data.num_examples": 1437, "log.every_steps": 3})
        )
    contents.check(points, tmp_path)
    other = sweeps.points(tmp_path, tiny={"model.width": 0.5})
    with pytest.raises(
        UserError, match=r"config.run.model.width is 0.25 in points/hot-seed0 and 0"
    ):
        contents.check(other, tmp_path)


def test_a_folder_that_was_moved_is_the_same_study(tmp_path):
    for point in sweeps.points(tmp_path / "a"):
        begin(point.folder, point.config)
    (tmp_path / "a").rename(tmp_path / "b")
    contents.check(sweeps.points(tmp_path / "b"), tmp_path / "b")


def test_points_of_other_studies_are_counted(tmp_path):
    points = sweeps.points(tmp_path)
    assert contents.of_other_studies(points, tmp_path) == ""
    for name in ("hot-seed0", "warm-seed0", *(f"x{n}-seed0" for n in range(7))):
        (tmp_path / "points" / name).mkdir(parents=True)
    line = contents.of_other_studies(points, tmp_path)
    assert line.endswith(
        "8 points are not of this study: "
        + ", ".join(["warm-seed0", *(f"x{n}-seed0" for n in range(4))])
        + " and 3 more"
    )
