"""What TensorBoard finds in event files."""

import os

import tensorflow as tf
from etils import epath
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

from simclr_jax.evals import results
from simclr_jax.store.tensorboard import Board


def events(folder):
    """[(step, the value)] of all event files in a folder."""
    found = []
    for path in sorted(folder.iterdir()):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            found += [(event.step, value) for value in event.summary.value]
    return found


def test_a_run_begins_with_its_config_and_what_runs_are_compared_by(tmp_path):
    board = Board(epath.Path(tmp_path), last_step=4)
    values = {
        "optim.lr": 0.5, "loss.name": "nt_xent", "train.steps": None, "log.every_steps": 1,
        "data.dir": os.fsdecode(b"caf\xe9"),
    }  # fmt: skip
    board.describe(values, {*values} - {"log.every_steps"}, ["eval_top1"])
    board.close()
    (step, config), (_, experiment), (_, start) = events(tmp_path)
    assert step == 5  # A restart from an earlier step takes it back with the rows.
    assert config.metadata.plugin_data.plugin_name == "text"
    assert b"| optim.lr | `0.5` |" in config.tensor.string_val[0]
    data = HParamsPluginData.FromString(experiment.metadata.plugin_data.content).experiment
    assert [metric.name.tag for metric in data.metric_infos] == ["eval_top1"]
    data = HParamsPluginData.FromString(start.metadata.plugin_data.content).session_start_info
    assert data.hparams["optim.lr"].number_value == 0.5
    assert data.hparams["loss.name"].string_value == "nt_xent"
    assert data.hparams["data.dir"].string_value == "caf\ufffd"  # It is not UTF-8.
    assert set(data.hparams) == {"optim.lr", "loss.name", "data.dir"}


def test_an_evaluation_is_at_its_step_and_one_that_cannot_be_written_is_kept_all_the_same(
    tmp_path, caplog
):
    root = epath.Path(tmp_path)
    for step in (8, 4):
        result = {"protocol": "knn", "checkpoint_step": step, "top1": 0.5, "k": 3}
        results.show(root, root / f"knn/{step}/h,digits", result)
    found = events(tmp_path / "tensorboard/knn/h,digits")
    scores = {step: v.tensor for step, v in found if v.tag == "eval/knn/top1"}
    assert set(scores) == {4, 8}
    assert b"| k | `3` |" in next(v for _, v in found if "text" in v.tag).tensor.string_val[0]
    (tmp_path / "file").touch()
    results.show(root / "file", root / "file/knn/8/h", result)
    assert "cannot be written for TensorBoard" in caplog.text
