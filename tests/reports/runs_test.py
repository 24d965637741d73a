"""What is read of a run's folder, whether it is finished, and what went wrong."""

import dataclasses
import json
import shutil

import pytest

from simclr_jax.config import overrides
from simclr_jax.errors import UserError
from simclr_jax.reports import runs
from simclr_jax.run.health import Warned
from simclr_jax.store import lock


def test_a_run_is_read_with_its_numbers(run):
    facts = runs.facts(run)
    assert facts["network"] == "ResNet-10 x0.0625, nonlinear head"
    assert facts["steps"] == "8 of 8, of 16 images"
    assert facts["training images"].startswith("1,437 of digits, 10 classes")
    assert facts["last contrastive loss"] == f"{run.rows[-1]['contrastive_loss']:.3f}"
    assert "cpu" in facts["hardware"]
    assert facts["unreadable images"] == "none"
    assert runs.state(run) == "Finished: 8 of 8 steps."


def test_parameters_are_counted_in_the_digests_of_a_checkpoint(run):
    stored = json.loads((run.root / "checkpoints/8/digests/metadata").read_text())["arrays"]
    kernel = stored["model/params/encoder/stem_conv/kernel"]["shape"]
    assert kernel == [3, 3, 3, 4]
    assert 10_000 < runs.parameters(run) < 100_000
    assert runs.parameters(dataclasses.replace(run, steps=[])) is None


def test_a_run_that_was_stopped_is_told_from_one_in_training(run):
    stopped = dataclasses.replace(run, rows=run.rows[:3], steps=[])
    assert runs.state(stopped).startswith("Interrupted or stopped: 3 of 8 steps.")
    trains = dataclasses.replace(stopped, trains=True)
    assert runs.state(trains) == "In training: 3 of 8 steps when this page was made."


def test_the_lock_of_a_trainer_is_seen_and_not_needed(unevaluated, tmp_path):
    folder = shutil.copytree(unevaluated, tmp_path / "run")
    with lock.hold(runs.network.open_run(str(folder))):
        (found,) = runs.read([str(folder)])
    assert found.trains


def test_runs_of_one_name_are_told_apart_by_their_paths(unevaluated, tmp_path):
    paths = [str(shutil.copytree(unevaluated, tmp_path / each / "run")) for each in "ab"]
    assert [run.name for run in runs.read(paths)] == paths
    with pytest.raises(UserError, match="is given twice"):
        runs.read([paths[0], f"{paths[0]}/"])


def test_a_healthy_run_has_no_warnings(run):
    assert runs.warnings(run) == []


def test_what_went_wrong_is_told(run, tmp_path):
    for name in ("nonfinite/5.json", "nonfinite/12.json", "damaged/4/x"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    rows = [{**run.rows[0], "step": step, "mean_similarity": 0.999} for step in range(1, 200)]
    for row in rows:
        row |= {"input_wait": 0.5, "contrastive_loss": 6.9}
    rows[6] |= {"loss": None, "skipped_updates": 1}
    root = type(run.root)(tmp_path)
    said = runs.warnings(dataclasses.replace(run, root=root, rows=rows, warned=None))
    assert [line.split(":")[0] for line in said] == [
        "Step 100",
        "Step 100",
        "The loss of 1 logged steps is not finite, the first of them 7.",
        "Updates that were skipped, since they were not finite",
        "Steps whose images are listed since a number was not finite, in nonfinite/",
        "Damaged checkpoints that were set aside, in damaged/",
        "The devices waited for input 50% of the time (the median over the rows)",
    ]
    assert "all embeddings have become the same" in said[0]
    assert "over steps 81 to 100" in said[0]
    assert "a mean over steps 81 to 100, is" in said[1]
    assert ", still near 2·log(2B - 1)" in said[1]
    assert said[4].endswith("5, 12.")


def test_the_warnings_that_a_run_gave_are_repeated_and_it_is_not_judged_again(run):
    rows = [{**run.rows[0], "step": step, "mean_similarity": 0.999} for step in range(1, 200)]
    assert run.warned == {}
    quiet = dataclasses.replace(run, rows=rows)
    assert runs.warnings(quiet) == []
    line = "step 120: the contrastive loss, a mean over steps 101 to 120, is 7.38"
    ill = dataclasses.replace(quiet, warned={"stuck": Warned("stuck", 120, line)})
    assert runs.warnings(ill) == [f"S{line[1:]}."]
    assert runs.warnings(runs.at(ill, 120)) == [f"S{line[1:]}."]
    assert runs.warnings(runs.at(ill, 119)) == []


def test_an_evaluation_in_which_nearly_all_vote_is_warned_of(run):
    result = {"protocol": "knn", "dataset": "digits", "folder": "knn/8/h,digits", "k": 200}
    few, many, old = {**result, "voters": 180}, {**result, "voters": 400}, result
    assert runs.warnings(dataclasses.replace(run, results=[many, old])) == []
    (said,) = runs.warnings(dataclasses.replace(run, results=[few]))
    assert said.startswith("eval/knn/8/h,digits: config.knn.k=200 is more than half of the 180")
    assert "config.knn.k=18, a tenth of them, says more." in said
    by_k = few | {"k": 20, "by_k": {"20": {}, "100": {}}}
    (said,) = runs.warnings(dataclasses.replace(run, results=[by_k]))
    assert "config.knn.k=100 is more than half" in said


def test_the_best_evaluation_is_one_of_the_trained_network_on_its_own_images(run):
    result = {"protocol": "knn", "dataset": "digits", "checkpoint_step": 8, "top1": 0.5}
    results = [
        {**result, "folder": "a"},
        {**result, "folder": "b", "top1": 0.6, "checkpoint_step": 4},
        {**result, "folder": "c", "top1": 0.9, "untrained": True},
        {**result, "folder": "d", "top1": 0.9, "dataset": "cifar10"},
        {"folder": "e", "dataset": "digits"},
    ]
    found = runs.best_evaluation(dataclasses.replace(run, results=results))
    assert found == "top-1 60.0%, knn at step 4"
    assert runs.best_evaluation(run) is None


def test_evaluations_of_other_images_than_the_run_is_evaluated_on_are_not_the_best(run, tmp_path):
    """Folders of images share a name, and the classifier can be applied to the training images."""
    ours = run.described["fingerprints"]["eval"]
    kept = {"protocol": "knn", "dataset": "digits", "checkpoint_step": 8, "split": ours["split"]}
    rows = []
    for name, top1, split, images in (
        ("own", 0.5, ours["split"], ours),
        ("trained", 0.9, run.described["fingerprints"]["train"]["split"], None),
        ("other", 0.8, ours["split"], ours | {"names": "of another folder"}),
    ):
        row = {**kept, "folder": f"knn/8/{name}", "top1": top1, "split": split}
        place = tmp_path / "eval" / row["folder"]
        place.mkdir(parents=True)
        of = {"images": {"eval": images} if images else {}}
        (place / "result.json").write_text(json.dumps(row | {"of": of}))
        rows.append(row)
    root = type(run.root)(tmp_path)
    found = runs.best_evaluation(dataclasses.replace(run, root=root, results=rows))
    assert found == "top-1 50.0%, knn at step 8"


def test_a_run_that_has_diverged_is_not_said_to_go_on(run, tmp_path):
    (tmp_path / "nonfinite").mkdir()
    (tmp_path / "nonfinite/4.json").touch()
    stopped = dataclasses.replace(run, rows=run.rows[:3], steps=[2], root=type(run.root)(tmp_path))
    assert runs.state(stopped).startswith("Diverged: 3 of 8 steps, then a number was not finite.")
    past = dataclasses.replace(stopped, rows=run.rows[:6], steps=[2, 5])
    assert runs.state(past).startswith("Interrupted or stopped: 6 of 8 steps.")


def test_the_evaluation_that_is_advised_is_one_that_the_run_can_have(run):
    assert runs.first_evaluation(run) == "simclr-eval --config=eval/knn"
    several = dataclasses.replace(run, rows=[{"step": 1, "eval_binary_accuracy": 0.9}])
    unlabelled = {"fingerprints": {"train": {"labels": "a"}, "eval": {"split": "test"}}}
    for other in several, dataclasses.replace(run, described=unlabelled):
        assert runs.first_evaluation(other) == "simclr-eval --config=eval/geometry"
    without = {"data.num_examples": None, "data.name": None}
    imported = dataclasses.replace(run, config=overrides.changed(run.config, without))
    assert runs.first_evaluation(imported).endswith("eval/geometry --config.data.name=…")
