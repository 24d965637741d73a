"""The images that a config names, where an image has several labels."""

import pytest

from simclr_jax.config import overrides, sources
from simclr_jax.errors import UserError


def config_of(folder, *flags):
    given = (
        "--config.data.name=scenes",
        f"--config.data.dir={folder}",
        "--config.data.label_key=labels",
    )
    return overrides.load(["--config=digits", *given, "--config.train.batch_size=16", *flags])


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        ((), "objective.name=contrastive"),
        (("--config.objective.name=distill",), "objective.name=distill"),
        (("--config.objective.name=supervised", "--config.data.label_fraction=0.5"),
         "data.label_fraction=0.5"),
        (("--config.objective.name=supervised", "--config.data.labels_per_class=2"),
         "data.labels_per_class=2"),
    ],
)  # fmt: skip
def test_what_takes_one_label_names_the_key_of_several(scenes, flags, what):
    with pytest.raises(UserError) as error:
        sources.open_splits(config_of(scenes, *flags))
    assert str(error.value) == (
        f"config.data.label_key='labels': must be a feature of one label of an image for {what}, "
        "or leave out labels (data.num_classes=0)"
    )


def test_a_supervised_run_takes_several_and_any_run_none(scenes):
    train, evaluation = sources.open_splits(config_of(scenes, "--config.objective.name=supervised"))
    assert (train.multilabel, evaluation.multilabel, train.num_classes) == (True, True, 3)
    train, evaluation = sources.open_splits(config_of(scenes, "--config.data.num_classes=0"))
    assert (train.multilabel, evaluation.multilabel, train.num_classes) == (False, False, 0)


def test_the_index_of_a_run_in_a_bucket_is_kept_there_unless_a_folder_is_named(scenes):
    config = config_of(scenes)
    kept = sources.indexed_in(config, "gs://bucket/run/").data.index_dir
    assert kept == "gs://bucket/run/tfrecord_index"
    assert sources.indexed_in(config, "runs/first") == config
    named = config_of(scenes, "--config.data.index_dir=gs://bucket/shared")
    assert sources.indexed_in(named, "gs://bucket/run") == named
    with sources.shared():  # Whichever run of a sweep opens it, a dataset is the same.
        assert sources.open_dataset(named) is sources.open_dataset(config)


def test_a_dataset_is_listed_once_where_it_is_shared(scenes):
    first, other = config_of(scenes), config_of(scenes, "--config.data.num_classes=0")
    with sources.shared():
        dataset = sources.open_dataset(first)
        assert sources.open_dataset(first) is dataset
        assert sources.open_dataset(other) is not dataset  # It has no labels.
        assert dataset.train() is dataset.train()
        assert dataset.eval() is dataset.eval()
    assert sources.open_dataset(first) is not dataset
