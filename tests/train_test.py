"""The train binary on a shipped config, shrunk: what it writes, how it resumes, how it fails."""

import json
import math
import os
import shutil
import signal
import sys
import time

import chex
import numpy as np
import pytest

from simclr_jax import cli, train, verify
from simclr_jax.config import inputs
from simclr_jax.run.online import OnlineEvaluation
from simclr_jax.store import checkpoint
from simclr_jax.store.rows import read_rows
from support.runs import TINY, changed_at, killed_after, rows, saved_digests, status_of

FLAGS = [
    *TINY,
    "--config.checkpoint.every_steps=3",
    "--config.eval.every_steps=4",
    "--config.checkpoint.keep=1",
]


def run(workdir, *overrides, steps=8):
    """The exit status of simclr-train."""
    flags = [*FLAGS, f"--config.train.steps={steps}", f"--workdir={workdir}"]
    return status_of(train.main, *flags, *overrides)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of 8 steps, evaluated at 4 and 8, saved at 3, 6 and 8."""
    workdir = tmp_path_factory.mktemp("finished")
    assert run(workdir) == 0
    return workdir


def test_a_run_writes_a_row_a_step_with_the_documented_keys(finished):
    found = read_rows(finished / "metrics.jsonl")
    assert [row["step"] for row in found] == list(range(1, 9))
    always = {
        "step", "epoch", "loss", "contrastive_loss", "contrastive_accuracy", "contrastive_entropy",
        "online_accuracy", "learning_rate", "grad_norm", "images_per_second",
    }  # fmt: skip
    for row in found:
        assert always <= set(row)
        scores = {"eval_loss", "eval_top1", "eval_knn"}
        assert scores & {*row} == (scores if row["step"] in (4, 8) else set())
    assert found[0]["learning_rate"] == 0.0  # row k is update k, whose rate is schedule(k - 1)
    assert found[0]["images_per_second"] is None  # compiling is not training
    assert found[5]["images_per_second"] > 0
    assert found[3]["epoch"] == 4 * 16 / 1437


def test_the_latest_and_the_best_checkpoint_are_kept(finished):
    """keep=1: 8 is the latest, and the only one that was evaluated."""
    assert checkpoint.Reader(finished).steps() == [8]


def test_config_json_describes_the_run(finished):
    described = json.loads((finished / "config.json").read_text())
    assert described["config"]["train"]["batch_size"] == 16
    assert described["config"]["data"]["num_examples"] == 1437
    assert described["devices"] == 8
    assert described == checkpoint.Reader(finished).config(8)


def test_a_finished_run_says_so(finished, capsys):
    before = (finished / "metrics.jsonl").read_bytes()
    assert run(finished) == 0
    assert "had reached step 8 already" in capsys.readouterr().out
    assert (finished / "metrics.jsonl").read_bytes() == before


def test_a_run_whose_checkpoints_are_gone_does_not_begin_again(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints")
    assert run(tmp_path / "run") == cli.USER_ERROR
    assert "reaches step 8, yet there is no checkpoint" in capsys.readouterr().err.splitlines()[-1]
    assert rows(tmp_path / "run") == rows(finished)


@pytest.mark.slow
def test_more_checkpoints_may_be_asked_for_before_there_is_one(finished, tmp_path, capsys):
    """The run had saved at its end only: that it has reached step 8 without one is no loss."""
    shutil.copytree(finished, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/checkpoints")
    path = tmp_path / "run/config.json"
    described = json.loads(path.read_text())
    described["config"]["checkpoint"]["every_steps"] = 100
    path.write_text(json.dumps(described))
    assert run(tmp_path / "run", "--config.checkpoint.every_steps=2") == 0
    assert "its 8 steps are trained again" in capsys.readouterr().out
    assert rows(tmp_path / "run") == rows(finished)


@pytest.mark.slow
def test_measures_change_no_other_number_and_are_replayed(finished, tmp_path):
    assert run(tmp_path, "--config.log.measures_every_steps=3", "--config.log.every_steps=2") == 0
    measures = {"positive_similarity", "hardest_similarity", "alignment", "uniformity", "rankme"}
    measures |= {"param_norm", *map("trust_ratio_{}".format, ("min", "median", "max"))}
    plain = {row["step"]: row for row in rows(finished)}
    for row in rows(tmp_path):
        assert measures & {*row} == (measures if row["step"] % 3 == 0 else set())
        assert {k: v for k, v in row.items() if k not in measures} == plain[row["step"]]
    assert saved_digests(tmp_path, 8) == saved_digests(finished, 8)
    assert status_of(verify.main, f"--run={tmp_path}") == 0


@pytest.mark.parametrize("name", ["metrics.jsonl", "config.json"])
def test_a_folder_where_a_file_belongs_is_named(finished, tmp_path, capsys, name):
    shutil.copytree(finished, tmp_path / "run")
    path = tmp_path / "run" / name
    path.unlink(missing_ok=True)
    path.mkdir()
    assert run(tmp_path / "run") == cli.USER_ERROR
    assert f"{path}: Is a directory; move it away" in capsys.readouterr().err


@pytest.mark.slow
def test_a_process_without_stdout_trains(finished, tmp_path, monkeypatch):
    shutil.copytree(finished, tmp_path / "run")
    monkeypatch.setattr(sys, "stdout", None)
    assert run(tmp_path / "run") == 0
    sys.stdout.close()


def test_rows_that_are_gone_are_missed(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run/metrics.jsonl").unlink()
    assert run(tmp_path / "run") == 0
    assert "has no rows from step 1 to the checkpoint's" in capsys.readouterr().err


def test_an_interrupted_run_goes_on_exactly(finished, tmp_path, monkeypatch, capsys):
    """Stopped after step 5; the last checkpoint is at 3."""
    with killed_after(monkeypatch, 5):
        train.main([*FLAGS, "--config.train.steps=8", f"--workdir={tmp_path}"])
    assert run(tmp_path) == 0
    said = capsys.readouterr()
    assert "resumed from step 3" in said.out
    assert " s for 8 steps (" in said.err
    assert " s for the 5 steps that are left (" in said.err
    assert rows(tmp_path) == rows(finished)
    chex.assert_trees_all_equal(*(saved_arrays(workdir) for workdir in (tmp_path, finished)))


def saved_arrays(workdir):
    """Every array in the last checkpoint, as Orbax alone reads it."""
    import orbax.checkpoint as ocp

    manager = ocp.CheckpointManager(workdir / "checkpoints")
    items = manager.restore(
        8, args=ocp.args.Composite(model=ocp.args.StandardRestore(),
                                   optimizer=ocp.args.StandardRestore())
    )  # fmt: skip
    return items["model"], items["optimizer"]


@pytest.mark.slow
def test_unlabelled_training_has_no_classifier(finished, tmp_path):
    assert run(tmp_path, "--config.data.num_classes=0", steps=2) == 0
    for row in rows(tmp_path):
        assert "online_accuracy" not in row
        assert "eval_top1" not in row
    assert rows(tmp_path)[0]["contrastive_loss"] == rows(finished)[0]["contrastive_loss"]


SUPERVISED = ["--config.objective.name=supervised", "--config.augment.ops=('crop','flip')"]


@pytest.mark.slow
def test_a_supervised_run_goes_on_exactly_and_is_replayed(tmp_path, monkeypatch, capsys):
    """Stopped after step 5; the last checkpoint is at 3. Two microbatches, of images once each."""
    flags = [*SUPERVISED, "--config.train.microbatches=2", "--config.train.batch_size=32"]
    assert run(tmp_path / "whole", *flags) == 0
    whole = rows(tmp_path / "whole")
    said = capsys.readouterr().out
    assert "parameters; supervised from new weights, 8 steps" in said
    assert "contrastive" not in said
    for row in whole:
        assert {"loss", "classifier_loss", "train_accuracy", "weight_decay_loss"} <= row.keys()
        assert not any("contrastive" in key or "online" in key for key in row)
        assert ("eval_loss" in row and "eval_top1" in row) == (row["step"] in (4, 8))
    with killed_after(monkeypatch, 5):
        train.main([*FLAGS, *flags, "--config.train.steps=8", f"--workdir={tmp_path}/cut"])
    assert run(tmp_path / "cut", *flags) == 0
    assert rows(tmp_path / "cut") == whole
    chex.assert_trees_all_equal(*(saved_arrays(tmp_path / name) for name in ("cut", "whole")))
    capsys.readouterr()
    assert status_of(verify.main, f"--run={tmp_path}/whole") == 0
    assert "what config and seed lead to, bit for bit" in capsys.readouterr().out


@pytest.mark.slow
def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_checkpoints(tmp_path, capsys):
    status = run(
        tmp_path, "--config.optim.name=momentum", "--config.optim.lr=1e30",
        "--config.optim.warmup_epochs=0.03", "--config.checkpoint.every_steps=1",
    )  # fmt: skip
    assert status == 1
    line = capsys.readouterr().err.strip().splitlines()[-1]
    step = int(line.split(":")[0].removeprefix("step "))
    assert "not finite" in line or "is nan" in line or "is inf" in line
    assert "at learning rate" in line
    assert f"step {step - 1} had loss" in line
    batch = json.loads((tmp_path / f"nonfinite/{step}.json").read_text())
    assert len(batch["examples"]) == 16
    assert set(batch["examples"][0]) == {"index", "epoch", "name"}
    assert batch["last_finite_row"]["step"] == step - 1
    kept = checkpoint.Reader(tmp_path).steps()
    assert kept
    assert max(kept) == step - 1
    assert rows(tmp_path)[-1]["step"] == step - 1


@pytest.mark.slow
def test_an_evaluation_gives_way_to_a_signal_and_is_made_up_for(finished, tmp_path, monkeypatch):
    """Told to stop while it evaluates after step 4: that state is saved, and evaluated later."""
    real = OnlineEvaluation.__call__

    def told(self, state, give_up):
        os.kill(os.getpid(), signal.SIGTERM)
        while not give_up():
            time.sleep(0.01)
        return real(self, state, give_up)

    monkeypatch.setattr(OnlineEvaluation, "__call__", told)
    assert run(tmp_path) == 75
    monkeypatch.undo()
    assert checkpoint.Reader(tmp_path).steps() == [4]
    assert rows(tmp_path)[-1]["step"] == 4
    assert "eval_loss" not in rows(tmp_path)[-1]
    assert run(tmp_path) == 0
    assert rows(tmp_path) == rows(finished)


@pytest.mark.slow
def test_a_run_may_skip_updates_that_are_not_finite(tmp_path, monkeypatch, capsys):
    """The fifth batch holds a NaN: its update leaves the state as it was, and is counted."""
    real = inputs.train_batches

    def spoilt(*args, start_step, **kwargs):
        for step, batch in enumerate(real(*args, start_step=start_step, **kwargs), start_step):
            if step == 4:
                batch = batch | {"image": batch["image"].copy()}
                batch["image"][0, 0, 0, 0, 0] = np.nan
            yield batch

    monkeypatch.setattr(inputs, "train_batches", spoilt)
    flags = ["--config.data.transfer_dtype=float32", "--config.eval.every_steps=100"]
    flags += ["--config.checkpoint.every_steps=1", "--config.checkpoint.keep=9"]
    assert run(tmp_path, *flags, "--config.train.on_nonfinite=skip", steps=6) == 0
    assert "step 5: loss is nan" in capsys.readouterr().err
    found = rows(tmp_path)
    assert [row["skipped_updates"] for row in found] == [0, 0, 0, 0, 1, 1]
    assert found[4]["loss"] is None
    assert math.isfinite(found[5]["loss"])
    arrays = [saved_digests(tmp_path, step) for step in (4, 5, 6)]
    moved = [key for key in arrays[0] if arrays[0][key] != arrays[1][key]]
    assert moved
    assert all("count" in key or key == "optimizer/step" for key in moved)
    assert arrays[1] != arrays[2]
    assert run(tmp_path / "stops", *flags, steps=6) == 1
    assert "step 5: loss is nan" in capsys.readouterr().err
    assert checkpoint.Reader(tmp_path / "stops").steps() == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["--config.train.batch_size=12"], "config.train.batch_size=12: must be a multiple"),
        (["--config.train.batch_size=1440"], "config.train.batch_size=1440: must be at most"),
        (["--config.data.name=folder"], "config.data.dir=None"),
        (["--config.data.eval_split=validation"], "config.data.eval_split='validation': digits"),
        (["config.train.steps=3"], "config.train.steps=3: unexpected argument"),
        (["--workers=3"], "Unknown command line flag 'workers'"),
        (["extra"], "extra"),
        (["--workdir=runs/run[1]"], "--workdir='runs/run[1]': no checkpoint can be read below"),
    ],
)  # fmt: skip
def test_bad_input_ends_with_status_2_and_a_line(tmp_path, capsys, overrides, line):
    assert run(tmp_path / "run", *overrides) == cli.USER_ERROR
    assert line in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "run").exists()  # nothing was made


def test_a_workdir_is_required(capsys):
    assert status_of(train.main, *TINY) == cli.USER_ERROR
    assert "--workdir: required" in capsys.readouterr().err


def test_a_workdir_of_another_run_is_refused_unharmed(finished, capsys):
    before = changed_at(finished)
    assert run(finished, "--config.model.head_dim=8") == cli.USER_ERROR
    assert "config.model.head_dim=8 (the run has 64)" in capsys.readouterr().err
    assert run(finished, "--config.model.head_dim=8", "--allow_config_change") == cli.USER_ERROR
    assert run(finished, "--config.loss.temperature=0.2") == cli.USER_ERROR
    assert "--allow_config_change" in capsys.readouterr().err.splitlines()[-1]
    assert changed_at(finished) == before


def test_a_change_that_is_allowed_goes_on_and_is_named(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run")
    flags = ["--config.loss.temperature=0.2", "--allow_config_change"]
    assert run(tmp_path / "run", *flags, steps=8) == 0
    assert (
        "changed since the run was last started: config.loss.temperature" in capsys.readouterr().out
    )
    described = json.loads((tmp_path / "run/config.json").read_text())
    assert described["config"]["loss"]["temperature"] == 0.2


def test_help_lists_the_flags(capsys):
    assert status_of(train.main, "--help") == 0
    assert "--workdir" in capsys.readouterr().out


def test_a_workdir_that_cannot_be_made_is_named(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert run(tmp_path / "file/run") == cli.USER_ERROR
    assert f"--workdir={tmp_path}/file/run: cannot be made" in capsys.readouterr().err


@pytest.mark.slow
def test_a_supervised_run_of_several_labels_an_image_learns_them(tmp_path, scenes, capsys):
    flags = [
        "--config.objective.name=supervised", "--config.data.name=scenes",
        f"--config.data.dir={scenes}", "--config.data.label_key=labels", "--config.augment.ops=()",
        "--config.optim.lr=3.0", "--config.checkpoint.every_steps=30",
        "--config.train.microbatches=2",
    ]  # fmt: skip
    assert run(tmp_path, *flags, steps=30) == 0
    said = capsys.readouterr().out
    assert "3 classes, of which an image can have several: 'red', 'green', 'blue'" in said
    assert "--config=configs/eval/logistic.py" in said
    found = rows(tmp_path)
    assert found[0]["loss"] == pytest.approx(math.log(2), abs=0.2)
    assert np.mean([row["loss"] for row in found[-5:]]) < 0.4
    assert np.mean([row["train_accuracy"] for row in found[-5:]]) > 0.8
    assert "eval_loss" in found[-1]
    assert "eval_top1" not in found[-1]
    assert 0.5 < found[-1]["eval_binary_accuracy"] < 1
    assert status_of(verify.main, f"--run={tmp_path}") == 0
