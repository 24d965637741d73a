"""The images of an evaluation: those of the run, or others."""

from ml_collections import ConfigDict

from simclr_jax.config import default, default_eval, overrides
from simclr_jax.evals.task import with_data

RUN = overrides.changed(
    default.get_config(),
    {
        "data.name": "imagenet2012", "data.dir": "DATA", "data.train_split": "train[:10%]",
        "data.eval_split": "validation", "data.label_key": "label", "data.num_classes": 0,
    },
)  # fmt: skip


def data(**values):
    found = default_eval.get_config("linear").data
    found.update(ConfigDict(values))
    return with_data(RUN, found).data


def test_labels_are_those_of_the_images_even_after_a_run_without_labels():
    assert data().num_classes is None
    assert data(dir="LABELLED").num_classes is None
    assert data(num_classes=0).num_classes == 0


def test_another_dataset_has_its_own_defaults_and_another_folder_the_runs_splits():
    moved = data(dir="LABELLED")
    assert (moved.name, moved.train_split, moved.label_key) == (
        "imagenet2012", "train[:10%]", "label",
    )  # fmt: skip
    other = data(name="stl10")
    assert (other.dir, other.train_split, other.eval_split, other.label_key) == (
        None, "train", None, None,
    )  # fmt: skip
