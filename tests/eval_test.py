"""The eval binary on a tiny run."""

import json
import shutil
from functools import partial

import numpy as np
import pytest

from simclr_jax import cli
from simclr_jax import eval as evaluation
from simclr_jax.errors import DivergedError
from simclr_jax.evals import features, results
from support.runs import changed_at, result, status_of

LINEAR, KNN = "--config=eval/linear", "--config=eval/knn"

run = partial(status_of, evaluation.main)


def test_knn_writes_the_documented_keys(finished):
    assert run(KNN, f"--run={finished}") == 0
    found = result(finished, "knn", "8")
    assert found["protocol"] == "knn"
    assert found["checkpoint_step"] == 8
    assert (found["dataset"], found["split"], found["num_examples"]) == ("digits", "test", 360)
    assert 0.1 < found["top1"] <= found["top5"] <= 1
    assert (found["k"], found["temperature"]) == (200, 0.1)


def test_the_end_names_the_next_command_and_quiet_nothing(finished, capsys):
    assert run(KNN, f"--run={finished}") == 0
    assert capsys.readouterr().out.splitlines()[-1].startswith(f"next: simclr-report {finished} ")
    written = changed_at(finished / "eval/knn/8")
    assert run(KNN, f"--run={finished}", "-q") == 0
    assert capsys.readouterr() == ("", "")
    assert changed_at(finished / "eval/knn/8") != written


def test_linear_uses_the_features_that_knn_cached(finished, monkeypatch):
    assert run(KNN, f"--run={finished}") == 0
    monkeypatch.setattr(features.Extractor, "evaluation", None)  # computing them would fail
    assert run(LINEAR, f"--run={finished}", "--config.linear.epochs=30") == 0
    assert result(finished, "linear", "8", "h,digits,epochs=30.0")["num_examples"] == 360


@pytest.mark.slow
def test_another_checkpoint_layer_or_split_has_other_features(finished, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(finished, copy, ignore=shutil.ignore_patterns("eval"))
    for override in ("--step=8", "--step=4", "--config.features.layer=head1", "--untrained"):
        assert run(KNN, f"--run={copy}", override, "--config.features.keep=99") == 0
    flags = ("--config.data.eval_split=train", "--config.features.keep=99")
    assert run(KNN, f"--run={copy}", *flags) == 0
    cached = list((copy / "eval" / "features").glob("*.npy"))
    assert len(cached) == 4 * 2  # the training split serves as either
    assert result(copy, "knn", "4")["checkpoint_step"] == 4
    assert result(copy, "knn", "untrained")["untrained"] is True


def test_a_damaged_run_is_named(finished, tmp_path, capsys):
    for text in ("", "{}", '{"config"', '{"config": []}', '{"config": {}}', "[" * 100_000):
        (tmp_path / "config.json").write_text(text)
        assert run(KNN, f"--run={tmp_path}", "--untrained") == cli.USER_ERROR
        assert "config.json: damaged" in capsys.readouterr().err.splitlines()[-1]


def test_a_result_of_chosen_labels_says_which(finished, capsys):
    assert run(KNN, f"--run={finished}", "--config.data.labels_per_class=9") == 0
    said = "train with few labels: 90 of 1437 images, 9 a class"
    assert f"layer h, {said}, k 200" in capsys.readouterr().out
    found = result(finished, "knn", "8", "h,digits,data.labels_per_class=9")
    assert found["train_split"] == said


def test_pixels_are_the_images_themselves(finished):
    options = ("--config.features.layer=pixels", "--config.linear.labels_per_class=10")
    assert run(LINEAR, f"--run={finished}", *options) == 0
    found = result(finished, "linear", "8", "pixels,digits,labels_per_class=10")
    assert found["top1"] == pytest.approx(0.9, abs=0.02)  # logistic regression on 64 pixels
    assert len(found["draws"]) == 5
    assert found["top1_std"] == pytest.approx(np.std(found["draws"]))


def test_results_of_different_things_stand_beside_each_other(finished, capsys):
    ways = {"h,digits": [], "h,digits,k=20": ["--config.knn.k=20"]}
    for argv in (*ways.values(), []):  # The same, asked twice, is one result.
        assert run(KNN, f"--run={finished}", *argv) == 0
    lines = capsys.readouterr().out.splitlines()
    printed = [line.split("  (")[0] for line in lines if not line.startswith("next: ")]
    assert printed[0] == printed[2]
    assert printed[1].endswith("on 360 images of digits, layer h, k 20")
    assert [result(finished, "knn", 8, way)["k"] for way in ways] == [200, 20]
    listed = read_list(finished / "eval")
    assert [listed.count(f"knn/8/{way}") for way in ways] == [1, 1]
    assert run("--list", KNN, f"--run={finished}") == 0
    lines = capsys.readouterr().out.splitlines()
    for way, line in zip(ways, printed, strict=False):
        assert line.replace("knn of 8", f"knn/8/{way}") in lines
    assert lines[-1].startswith(f"results in {finished / 'eval'}: ")


def test_several_numbers_of_neighbours_at_once_are_those_asked_for_one_by_one(finished, capsys):
    each = {}
    for k in (200, 7):
        assert run(KNN, f"--run={finished}", f"--config.knn.k={k}") == 0
        what = "h,digits" if k == 200 else f"h,digits,k={k}"
        each[str(k)] = {name: result(finished, "knn", 8, what)[name] for name in ("top1", "top5")}
    assert run(KNN, f"--run={finished}", "--config.knn.k=7,200") == 0
    found = result(finished, "knn", 8, "h,digits,k=7_200*")
    assert found["by_k"] == each
    assert (found["k"], found["top1"]) == (7, each["7"]["top1"])  # not the better one's
    assert f"k 7 (top-1 {each['200']['top1']:.1%} with k 200)" in capsys.readouterr().out


def test_features_in_float16_give_nearly_the_same_and_are_other_features(finished, monkeypatch):
    for _ in range(2):
        assert run(KNN, f"--run={finished}", "--config.features.dtype=float16") == 0
        monkeypatch.setattr(features.Extractor, "evaluation", None)  # computing them would fail
    monkeypatch.undo()
    assert run(KNN, f"--run={finished}") == 0
    rough = result(finished, "knn", 8, "h,digits,features.dtype=float16")
    assert rough["top1"] == pytest.approx(result(finished, "knn", 8)["top1"], abs=0.02)


def read_list(folder):
    """The folders that results.jsonl names, in its order."""
    return [
        json.loads(line)["folder"] for line in (folder / "results.jsonl").read_text().splitlines()
    ]


@pytest.mark.slow
def test_a_run_that_cannot_be_written_to_is_evaluated_all_the_same(
    finished, tmp_path, monkeypatch, capsys
):
    before = changed_at(finished)
    writes = results.unwritable
    monkeypatch.setattr(
        results,
        "unwritable",
        lambda folder: "Read-only file system" if folder == finished / "eval" else writes(folder),
    )
    assert run(KNN, f"--run={finished}") == 0
    out, err = capsys.readouterr()
    assert "cannot be written to (Read-only file system); the result is printed and not kept" in err
    assert out.startswith("knn of 8: top-1 ")
    assert "  (not kept)\n" in out
    assert run("--config=eval/embed", f"--run={finished}") == cli.USER_ERROR
    assert "--to=FOLDER" in capsys.readouterr().err.splitlines()[-1]
    assert changed_at(finished) == before

    assert run(KNN, f"--run={finished}", f"--to={tmp_path}/mine") == 0
    assert read_list(tmp_path / "mine") == ["knn/8/h,digits"]
    assert run(KNN, f"--run={finished}", "--to=/proc/mine") == cli.USER_ERROR
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("--to=/proc/mine: cannot be written to (")
    assert changed_at(finished) == before


@pytest.mark.slow
def test_augmented_linear_evaluation_runs(finished, capsys):
    assert run(LINEAR, f"--run={finished}", "--config.linear.augment=true",
               "--config.linear.epochs=1", "--config.linear.batch_size=104") == 0  # fmt: skip
    what = "h,digits,augment=True,batch_size=104,epochs=1.0"
    assert result(finished, "linear", "8", what)["num_examples"] == 360


def test_watch_evaluates_every_checkpoint_and_ends_with_the_run(finished, capsys):
    assert run(KNN, f"--run={finished}", "--watch") == 0
    printed = capsys.readouterr().out
    assert "knn of 4:" in printed
    assert "knn of 8:" in printed


def test_watch_goes_on_after_a_checkpoint_without_a_result(finished, monkeypatch, capsys):
    def evaluate_one(task, protocol):
        if task.network.step == 4:
            raise DivergedError("knn of step 4: no result")
        print(f"knn of {task.network.name}")

    monkeypatch.setattr(evaluation, "evaluate_one", evaluate_one)
    assert run(KNN, f"--run={finished}", "--watch") == 1
    out, err = capsys.readouterr()
    assert "knn of 8" in out
    assert err.splitlines() == [
        "knn of step 4: no result",
        "no result of 1 checkpoints; the last: knn of step 4: no result",
    ]


@pytest.mark.slow
def test_another_dataset_by_override(finished, tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for label in ("dark", "light"):
            for k in range(6):
                path = tmp_path / split / label / f"{k}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                level = rng.integers(0, 60) + (180 if label == "light" else 0)
                Image.new("RGB", (9, 11), (int(level),) * 3).save(path)
    folder = ("--config.data.name=folder", f"--config.data.dir={tmp_path}")
    assert run(KNN, f"--run={finished}", *folder, "--config.knn.k=3") == 0
    found = result(finished, "knn", "8", "h,folder,data.dir=*,k=3")
    assert (found["dataset"], found["num_examples"], found["top1"]) == ("folder", 12, 1.0)


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ([KNN], "--run: required"),
        ([KNN, "--run=nowhere"], "--run=nowhere: no run there"),
        ([KNN, "--run={run}", "--step=3"], "--step=3: "),
        (["--list"], "--run: required"),
        (["--list", "--run={run}", "--untrained"], "--list: prints what was evaluated; leave out"),
        (["--list=True", "--run={run}", "--untrained"], "--list: prints what was evaluated;"),
        (["--list", "--to={run}/nowhere"], "--to={run}/nowhere: no such folder"),
        ([KNN, "--run={run}", "--config.features.keep=-1"], "config.features.keep=-1: must be"),
        ([KNN, "--run={run}", "--watch", "--step=2"], "--watch, --untrained, --step: only one"),
        ([KNN, "--run={run}", "--config.features.layer=head9"], "config.features.layer=head9: the"),
        ([KNN, "--run={run}", "--config.features.layer=y"], "config.features.layer='y': must be"),
        ([KNN, "--run={run}", "--config.knn.k=0"], "config.knn.k=0: must be a whole number"),
        ([KNN, "--run={run}", "--config.knn.k=5,5"], "config.knn.k=(5, 5): must be a whole number"),
        ([KNN, "--run={run}", "--config.knn.k=None"], "config.knn.k=None: must be of type int;"),
        ([LINEAR, "--run={run}", "--config.linear.labels_per_class=999"],
         "config.linear.labels_per_class=999: must be at most"),
        (["--config=digits", "--run={run}"], "--config=digits: is a training run's, which"),
        ([KNN, "--run={run}", "--config.protocol=nn"], "config.protocol='nn': must be one of"),
    ],
)  # fmt: skip
def test_bad_input_ends_with_status_2_and_a_line(finished, capsys, argv, line):
    status = run(*(arg.format(run=finished) for arg in argv))
    assert status == cli.USER_ERROR
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith(line.format(run=finished))
