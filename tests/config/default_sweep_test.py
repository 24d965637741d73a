"""How a study is written: its points and measures, and what is refused while it is."""

import pytest

from simclr_jax.config import default_sweep, shipped
from support import sweeps


def test_points_and_measures_are_in_the_order_in_which_they_were_added():
    c = sweeps.study()
    assert default_sweep.in_order(c.points) == ["hot", "cold", "on"]
    assert default_sweep.in_order(c.measures) == ["knn", "entropy"]


def test_a_point_has_the_measures_that_there_are_by_then():
    c = default_sweep.get_config("small")
    default_sweep.add_measure(c, "a", "loss")
    default_sweep.add_point(c, "one", at=(1, 1), run={})
    default_sweep.add_measure(c, "b", "loss")
    default_sweep.add_point(c, "two", at=(1, 2), run={})
    assert (c.points.one.measures, c.points.two.measures) == (("a",), ("a", "b"))


def test_a_measure_is_the_protocols_record_with_its_own_keys():
    c = default_sweep.get_config("small")
    arguments = "method=finetune"
    keys = {"transfer.steps": 7, "data.name": "digits"}
    default_sweep.add_measure(
        c, "m", "top1", protocol="transfer", arguments=arguments, label="M", keys=keys
    )
    record = shipped.load("eval/transfer", arguments)
    changed = default_sweep.differences(c.measures.m.eval, record)
    assert changed == keys
    assert (c.measures.m.label, c.measures.m.metric, c.measures.m.percent) == ("M", "top1", True)


@pytest.mark.parametrize(
    ("add", "said"),
    [
        (lambda c: default_sweep.add_point(c, "hot", at=(1, 1), run={}), "'hot': is there already"),
        (lambda c: default_sweep.add_measure(c, "knn", "top1"), "'knn': is there already"),
        (
            lambda c: default_sweep.add_measure(c, "m", "top1", protocol="nn"),
            "'eval/nn': known records",
        ),
        (
            lambda c: default_sweep.add_measure(c, "m", "top1", protocol="knn", keys={"knn.n": 1}),
            "measure m: unknown key knn.n",
        ),
        (lambda c: default_sweep.get_config("large"), "'size=large': must be one of small, paper"),
    ],
)
def test_a_mistake_in_a_study_is_named(add, said):
    with pytest.raises(ValueError, match=said):
        add(sweeps.study())
