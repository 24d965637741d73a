"""The model card tells what the run's folder tells, nothing else, and no paths."""

import json
import re
import shutil

import pytest
import yaml

from simclr_jax.evals import results
from simclr_jax.reports import card, runs

ABOUT = {
    "outputs": {"h": [32], "z": [64], "logits": [10]},
    "checked": ["h", "logits", "z"],
    "relative_difference": 1.23e-6,
    "image_size": 8,
    "channels": 3,
    "preprocessing": "floats in [0, 1]",
}
RESULT = {
    "protocol": "knn", "checkpoint_step": 8, "untrained": False, "dataset": "digits",
    "layer": "h", "split": "test", "top1": 0.51234, "top5": 0.875, "num_examples": 360,
    "unreadable": 2, "unlabelled": 0,
    "of": {"config": {"protocol": "knn", "seed": 0, "knn": {"k": 20, "temperature": 0.1},
                      "data": {"dir": "/home/jane/cats", "label_seed": 0}}},
}  # fmt: skip


@pytest.fixture
def folder(unevaluated, tmp_path):
    """A copy of the shared run, whose name has letters that YAML and Markdown know."""
    return shutil.copytree(unevaluated, tmp_path / "my: <run>")


def add(folder, name="h,digits", **changes):
    """Adds a result to a run."""
    result = RESULT | changes
    step = "untrained" if result["untrained"] else result["checkpoint_step"]
    place = runs.network.open_run(str(folder)) / "eval"
    results.write(place, place / result["protocol"] / str(step) / name, result)


def changed(folder, **sections):
    """Changes keys of a run's config."""
    described = json.loads((folder / "config.json").read_text())
    for section, values in sections.items():
        described["config"][section] |= values
    (folder / "config.json").write_text(json.dumps(described))


def written(folder, step=8):
    """The metadata and the text of a card."""
    text = card.of_run(str(folder), step, ABOUT)
    _, front, body = re.split(r"^---\n", text, maxsplit=2, flags=re.M)
    return yaml.safe_load(front), body


def test_metadata_have_what_the_hub_knows_and_no_license(folder):
    front, body = written(folder)
    assert front == {
        "library_name": "simclr_jax",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["simclr", "resnet", "pytorch", "self-supervised-learning", "contrastive-learning"],
    }
    assert body.startswith("\n# my: \\<run>\n")
    assert "the author of this network chooses it" in body


def test_the_card_tells_data_recipe_and_that_there_is_no_result(folder):
    _, body = written(folder)
    assert "ResNet-10 x0.0625 that maps an image of 8 x 8 pixels to 32 numbers" in body
    assert "- Training: 1,437 images of digits, split train." in body
    assert "10 classes (0, 1, 2, 3, 4, 5, 6, 7, 8, 9). They trained the linear classifier" in body
    assert "| steps | 8 of 8, of 16 images |" in body
    assert "| objective | contrastive, nt_xent, temperature 0.5 |" in body
    assert "| train.batch_size | 16 | 4096 |" in body
    assert "log.tensorboard" not in body  # No number depends on it.
    assert "There is no evaluation of this checkpoint" in body
    assert "simclr-eval --config=eval/knn --run=RUN --step=8" in body
    assert "agree with those of the network that was trained, in JAX, to\n1.2e-06" in body


def test_the_card_tells_where_evaluations_round_what_the_transform_does_not(folder):
    assert "Evaluations then round the result to 256 levels" in written(folder)[1]
    changed(folder, data={"transfer_dtype": "float32"})
    assert "Evaluations then round" not in written(folder)[1]


def test_results_are_told_with_their_commands_and_the_rest_is_counted(folder):
    add(folder)
    add(folder, checkpoint_step=4, top1=0.99)
    add(folder, untrained=True, checkpoint_step=0, top1=0.25)
    front, body = written(folder)
    (model,) = front["model-index"]
    assert model["name"] == "my: <run>"
    assert [entry["metrics"][0]["value"] for entry in model["results"]] == [0.5123]
    assert "| knn | h | 360 of digits, split test | 51.2% | 87.5% | — |" in body
    assert "| knn, untrained network | h | 360 of digits, split test | 25.0% | 87.5% | — |" in body
    assert "99.0%" not in body
    assert "which are not shown: 1." in body
    assert (
        "simclr-eval --config=eval/knn --run=RUN --step=8 --config.data.dir=cats "
        "--config.knn.k=20\n" in body
    )
    assert "simclr-eval --config=eval/knn --run=RUN --untrained" in body
    assert "below: of the images 2 that cannot be read, 0 without a label." in body


def test_what_could_not_be_read_is_counted_where_it_is_known(folder):
    described = json.loads((folder / "config.json").read_text())
    described["fingerprints"]["train"]["bytes"] = "a digest, as files have one"
    (folder / "config.json").write_text(json.dumps(described))
    listed = json.loads((folder / "unreadable.json").read_text())
    listed["train"]["indices"] = [3, 5]
    (folder / "unreadable.json").write_text(json.dumps(listed))
    assert "- Images that cannot be read: 2 were replaced.\n" in written(folder)[1]
    (folder / "unreadable.json").unlink()
    assert "- Images that cannot be read: not known.\n" in written(folder)[1]


def test_of_paths_the_last_part_is_told(folder):
    changed(folder, init={"run": "/home/jane/first"}, data={
        "name": "folder", "dir": "/home/jane/cats", "eval_split": "/home/jane/dogs",
    })  # fmt: skip
    add(folder, "h,folder,data.dir=home_jane_cats", dataset="folder", data_dir="/home/jane/cats",
        split="/home/jane/dogs")  # fmt: skip
    front, body = written(folder)
    assert "jane" not in json.dumps(front) + body
    assert "1,437 images of the folder cats" in body
    assert "It started from the weights of first." in body


def test_a_checkpoint_before_the_end_is_told_as_it_was(folder):
    _, body = written(folder, step=4)
    assert "Its training was not finished: these are the weights after 4 of 8 steps." in body
    assert "| steps | 4 of 8, of 16 images |" in body


def test_images_without_labels_have_none(folder):
    changed(folder, data={"num_classes": 0})
    _, body = written(folder)
    assert "- Labels: none." in body
    assert "simclr-eval --config=eval/geometry" in body


@pytest.mark.parametrize("missing", [{"logits"}, {"z"}, {"z", "logits"}])
def test_outputs_that_a_network_does_not_have_are_not_told(folder, missing, monkeypatch):
    outputs = {name: shape for name, shape in ABOUT["outputs"].items() if name not in missing}
    monkeypatch.setitem(ABOUT, "outputs", outputs)
    _, body = written(folder)
    assert {name for name in ("h", "z", "logits") if f"\n| {name} | (N, " in body} == {*outputs}


def test_operations_that_five_channels_cannot_have_are_not_told(folder, monkeypatch):
    changed(folder, data={"channels": 5}, augment={"ops": ["crop", "jitter", "grey"]})
    monkeypatch.setitem(ABOUT, "channels", 5)
    _, body = written(folder)
    assert "8 x 8 pixels and 5 channels to 32 numbers" in body
    assert "# a NumPy array (H, W, 5)\n" in body
    assert "| augmentation | crop, jitter; jitter strength" in body
    assert "; left out, as of red, green and blue: hue and saturation of the jitter, grey |" in body
    assert "whatever these change: crop, jitter." in body


def test_known_datasets_have_their_names_on_the_hub(folder):
    changed(folder, data={"name": "cifar10"})
    add(folder, dataset="cifar10")
    front, _ = written(folder)
    assert front["datasets"] == ["uoft-cs/cifar10"]
    assert front["model-index"][0]["results"][0]["dataset"] == {
        "type": "uoft-cs/cifar10", "name": "cifar10", "split": "test",
    }  # fmt: skip


def test_imported_weights_have_no_recipe(folder):
    described = json.loads((folder / "config.json").read_text())
    described["config"]["data"] |= {"num_examples": None, "name": None}
    described["imported_from"] = "/home/jane/ckpt/model.ckpt-40"
    del described["fingerprints"]
    (folder / "config.json").write_text(json.dumps(described))
    front, body = written(folder)
    assert "imported from the checkpoint model.ckpt-40, step 8" in body
    assert "does not know which images" in body
    assert "optimizer" not in body
    assert front["tags"] == ["simclr", "resnet", "pytorch"]


def test_the_hub_takes_the_metadata(folder):
    hub = pytest.importorskip("huggingface_hub", reason="checks the card as the Hub does")
    add(folder)
    found = hub.ModelCard(card.of_run(str(folder), 8, ABOUT))
    (result,) = found.data.eval_results
    assert (found.data.model_name, result.metric_value) == ("my: <run>", 0.5123)
    assert found.data.library_name == "simclr_jax"
