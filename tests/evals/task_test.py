"""The images of an evaluation: those of the run, or others."""

from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import ConfigDict

from simclr_jax import eval as evaluation
from simclr_jax.config import default, default_eval, overrides
from simclr_jax.errors import UserError
from simclr_jax.evals import results
from simclr_jax.evals import task as tasks
from simclr_jax.evals.task import MULTILABEL, Task, with_data
from support.sources import said

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


def test_an_evaluation_uses_all_labels_unless_it_says_which():
    run = overrides.changed(RUN, {"data.label_fraction": 0.01, "data.label_seed": 7})
    assert with_data(run, default_eval.get_config("knn").data).data.label_fraction is None
    few = data(labels_per_class=5)
    assert (few.labels_per_class, few.label_fraction, few.label_seed) == (5, None, 0)


def test_another_dataset_has_its_own_defaults_and_another_folder_the_runs_splits():
    moved = data(dir="LABELLED")
    assert (moved.name, moved.train_split, moved.label_key) == (
        "imagenet2012", "train[:10%]", "label",
    )  # fmt: skip
    other = data(name="stl10")
    assert (other.dir, other.train_split, other.eval_split, other.label_key) == (
        None, "train", None, None,
    )  # fmt: skip


@pytest.mark.parametrize("key", ["data.image_size", "data.value_range", "model.dtype"])
def test_equal_weights_that_see_images_in_another_way_have_results_of_their_own(key):
    def of(run_config):
        task = object.__new__(Task)
        task.config, task.run_config, task.sources = default_eval.get_config("knn"), run_config, {}
        task.network = SimpleNamespace(step=None, variables={"params": {}})
        return task.of

    values = {"data.image_size": 64, "data.value_range": (0, 4095), "model.dtype": "bfloat16"}
    assert results.same(of(RUN), of(RUN))
    assert not results.same(of(RUN), of(overrides.changed(RUN, {key: values[key]})))


class Part(list):
    """A source of images with these labels."""

    num_classes, split, class_names = 2, "100 held out of train by seed 0", ()

    @property
    def source(self):
        return self

    def load(self, indices):
        return [b""] * len(indices), np.array(self)[indices]

    def labels(self):
        return np.array(self)


def task_of(train, test):
    """A task with these splits."""
    task = object.__new__(Task)
    task.config, task.run_config = ConfigDict({"protocol": "knn"}), RUN
    task.train, task.test = train, test
    return task


@pytest.mark.parametrize("labelled", [0, 1])
def test_a_split_with_classes_and_no_label_is_refused_before_anything_is_computed(labelled):
    task = task_of(Part([0, 1]), Part([-1] * 500 + [1] * labelled + [-1] * 500))
    if labelled:
        Task.check_labels(task)
        return
    with pytest.raises(UserError) as error:
        Task.check_labels(task)
    assert str(error.value).startswith("config.data.eval_split='validation': knn needs labels, and")


def test_a_class_that_the_training_split_has_no_example_of_is_named(monkeypatch):
    """Before anything is computed where there are few labels to read."""
    train, test = Part([0, 0, -1, 2]), Part([0, 1, -1, 1])
    train.class_names = ("cat", "dog", "horse")
    Task.check_labels(task_of(Part([0, 1]), test))
    for check in (
        lambda: Task.check_labels(task_of(train, test)),
        lambda: Task.check_examples(task_of(train, test), np.array([0, 2, -1]), test.labels()),
    ):
        with pytest.raises(UserError) as error, said():
            check()
        assert str(error.value) == (
            "config.data.train_split='train[:10%]': has no example of class 1 ('dog'), which the "
            "evaluation split has"
        )
    monkeypatch.setattr(tasks, "FEW_LABELS", 3)
    Task.check_labels(task_of(train, test))


def test_one_split_alone_needs_labels_of_two_classes():
    unlabelled, one_class = Part([-1]), Part([0, 0])
    unlabelled.num_classes, one_class.num_classes = 0, 1
    Task.check_labels(task_of(unlabelled, Part([0, 1])), "eval")
    with pytest.raises(UserError, match="two at least, in the split; it has 1"):
        Task.check_labels(task_of(unlabelled, one_class), "eval")
    with pytest.raises(UserError, match="two at least, in both splits; they have 1 and 1"):
        Task.check_labels(task_of(one_class, one_class))


def test_each_of_several_labels_needs_images_with_it_and_without_it():
    train = Part([0, 0, 2])
    train.class_names = ("cat", "dog", "horse")
    task = task_of(train, Part([0, 1]))
    learnt = np.int8([[1, 0, 1], [0, -1, 1]])
    Task.check_examples(task, learnt, np.int8([[1, 0, 0], [1, -1, 0]]))
    for lacking, name in (([0, 1, 0], "1 ('dog')"), ([1, 0, 1], "2 ('horse')")):
        with (
            pytest.raises(UserError, match="has no images both with and without class") as error,
            said(),
        ):
            Task.check_examples(task, learnt, np.int8([lacking]))
        assert name in str(error.value)


@pytest.mark.parametrize("protocol", sorted(evaluation.PROTOCOLS.keys() - {*MULTILABEL}))
def test_a_protocol_of_one_label_an_image_names_the_key_of_several(protocol):
    config = overrides.changed(RUN, {"data.label_key": "labels"})
    task = SimpleNamespace(run_config=config, config=ConfigDict({"protocol": protocol}), sources={})
    with pytest.raises(UserError) as error:
        Task._opened(task, "train", SimpleNamespace(multilabel=True))
    assert str(error.value) == (
        "config.data.label_key='labels': must be a feature of one label of an image for "
        f"{protocol}, or leave out labels (data.num_classes=0)"
    )
    single = SimpleNamespace(multilabel=False)
    assert Task._opened(task, "train", single) is task.sources["train"] is single
