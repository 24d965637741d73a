"""What the studies of the paper have in common: their runs, and those beside them."""

import pytest

from simclr_jax.config import overrides, studies
from simclr_jax.sweeps import points


def test_a_supervised_run_is_the_record_s_with_these_numbers():
    record = studies.begin("small").run
    keys = studies.supervised("small", batch=64, epochs=3.0, warmup_epochs=0.5)
    run = overrides.changed(record, keys)
    assert (run.objective.name, run.train.batch_size) == ("supervised", 64)
    assert (run.train.epochs, run.optim.warmup_epochs) == (3.0, 0.5)
    assert run.data.to_dict() == record.data.to_dict()


def test_a_supervised_run_has_its_own_length_even_where_it_is_the_record_s():
    """A study of another length than its record would else give it that one."""
    record = studies.begin("paper").run
    keys = studies.supervised("paper", batch=4096, epochs=record.train.epochs, warmup_epochs=5.0)
    assert keys["train.epochs"] == record.train.epochs == 100.0
    assert keys["optim.warmup_epochs"] == 5.0
    assert keys["objective.name"] == "supervised"


@pytest.mark.parametrize("name", ["tab7_labels", "v2_distill"])
def test_on_few_labels_the_paper_s_networks_train_for_100_epochs_of_those_images(name, tmp_path):
    config = overrides.load([f"--config=paper/{name}:size=paper"])
    alone = [
        point.config
        for point in points.expand(config, tmp_path, devices=1)
        if point.of.startswith("supervised")
    ]
    assert alone
    for run in alone:
        assert (run.train.epochs, run.augment.ops) == (100.0, ("crop", "flip"))
        assert run.data.num_examples == round(1281167 * run.data.label_fraction)


def test_linear_evaluations_are_at_the_optimum_in_the_small_form_alone():
    for size, protocol in ("small", "logistic"), ("paper", "linear"):
        c = studies.begin(size)
        studies.add_linear(c, "z", label="g(h)", layer="z")
        assert (c.measures.z.eval.protocol, c.measures.z.eval.features.layer) == (protocol, "z")


def test_a_study_may_name_the_record_of_its_small_form():
    assert studies.begin("small", small="digits_small").run.data.name == "digits"
    assert studies.begin("small").run.data.name == "cifar10"
    assert studies.begin("paper", small="digits_small").run.data.name == "imagenet2012"


def test_the_neighbours_are_a_measure_of_the_small_form_alone():
    for size, measures in ("small", ["knn"]), ("paper", []):
        c = studies.begin(size)
        studies.add_knn(c)
        assert [*c.measures] == measures
