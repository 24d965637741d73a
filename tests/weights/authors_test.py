"""The authors' variables become our network, whatever they were called."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simclr_jax.errors import ArgumentError
from simclr_jax.models.simclr import SimCLR
from simclr_jax.weights.authors import classifier_layers, from_reference
from support.authors_names import named

NETWORKS = {
    "18": {"depth": 18, "width": 0.25, "stem": "small", "classes": 3},
    "34-imagenet": {"depth": 34, "width": 0.125, "head": "linear"},
    "50": {"depth": 50, "width": 0.5, "head_layers": 3, "head_dim": 20, "classes": 7},
    "101": {"depth": 101, "width": 0.75, "head": "none"},
    "152-sk": {"depth": 152, "width": 0.1875, "sk_ratio": 0.0625, "head_layers": 3},
    "50-sk-half": {"depth": 50, "width": 0.5, "sk_ratio": 0.5},
    "18-se": {"depth": 18, "width": 0.5, "se_ratio": 0.25, "stem": "small"},
    "50-se": {"depth": 50, "width": 1.5, "se_ratio": 1 / 3},
    "200": {"depth": 200, "width": 0.0625},
}
LARGE = ("50", "101", "152-sk", "200", "50-sk-half")


def variables_of(**kwargs):
    """A network's variables, each filled with a number of its own."""
    model = SimCLR(**kwargs)
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False)
    )
    leaves, tree = jax.tree.flatten(shapes)
    filled = [np.broadcast_to(np.float32(k), leaf.shape) for k, leaf in enumerate(leaves)]
    return jax.tree.unflatten(tree, filled)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] * (name in LARGE)) for name in NETWORKS],
)
def test_every_variable_goes_where_it_came_from(name):
    expected = {
        "width": 1.0, "sk_ratio": 0.0, "se_ratio": 0.0, "head": "nonlinear", "head_layers": 2,
        "head_dim": 128, "stem": "imagenet", **NETWORKS[name],
    }  # fmt: skip
    expected.pop("classes", None)
    variables = variables_of(**NETWORKS[name])
    for style, names in named(variables).items():
        config, params, batch_stats = from_reference(names)
        for key, value in expected.items():
            assert config[key] == (value if isinstance(value, str) else pytest.approx(value)), style
        found = {"params": params, "batch_stats": batch_stats}
        chex.assert_trees_all_equal(found, dict(variables), strict=True)


@pytest.fixture(scope="module")
def tf1():
    variables = variables_of(depth=18, width=0.25, stem="small", classes=3)
    return named(variables)["tf1"]


def test_training_state_is_ignored(tf1):
    slots = {f"{name}/Momentum": np.zeros(3) for name in tf1}
    for style, extra in [
        (tf1, {"global_step": np.int64(7), **slots}),
        (tf1, {"optimizer/iter/.ATTRIBUTES/VARIABLE_VALUE": np.int64(7), "save_counter": 1}),
    ]:
        config, _, _ = from_reference({**style, **extra})
        assert config.depth == 18


def test_numbers_count_in_order_not_as_text(tf1):
    """conv2d_10 comes after conv2d_9, and a network built second starts at a later number."""

    def later(name):
        name = name.replace("/conv2d/", "/conv2d_0/")
        return re.sub(r"/conv2d_(\d+)/", lambda match: f"/conv2d_{int(match[1]) + 95}/", name)

    shifted = {later(name): array for name, array in reversed(tf1.items())}
    assert "base_model/conv2d_105/kernel" in shifted
    chex.assert_trees_all_equal(from_reference(shifted)[1], from_reference(tf1)[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("base_model/batch_normalization_4/beta"),
         "missing: params/encoder/group1_block2/bn1/bias"),
        (lambda v: v.update({"base_model/conv2d_3/bias": np.zeros(16, np.float32)}),
         "left over: base_model/conv2d_3/bias"),
        (lambda v: v.update({"mystery": np.zeros(2, np.float32)}), "left over: mystery"),
        (lambda v: v.pop("base_model/conv2d_7/kernel"), "missing: conv2d_7"),
        (lambda v: v.pop("base_model/conv2d_20/kernel"),
         "20 convolutions and 21 batch norms make none .* nearest, a ResNet-18, has 21 and 21"),
        (lambda v: v.update({"base_model/conv2d_5/kernel": np.zeros((3, 3, 9, 9), np.float32)}),
         r"of another shape: base_model/conv2d_5/kernel \(3, 3, 9, 9\), not"),
        (lambda v: v.update({"base_model/conv2d_5/kernel":
                             np.full_like(v["base_model/conv2d_5/kernel"], np.nan)}),
         "not finite: base_model/conv2d_5/kernel"),
        (lambda v: v.update({"base_model/conv2d/kernel": np.zeros(3, np.int32)}), "holds int32"),
        (lambda v: v.pop("head_contrastive/nl_0/dense/kernel"), "missing: head/dense1/kernel"),
        (lambda v: v.clear(), "no encoder"),
    ],
    ids=["missing", "bias", "foreign", "gap", "conv", "shape", "nan", "dtype", "head", "nothing"],
)  # fmt: skip
def test_what_does_not_fit_is_named(tf1, change, message):
    variables = dict(tf1)
    change(variables)
    with pytest.raises(ValueError, match=message):
        from_reference(variables)


@pytest.mark.parametrize(
    "second",
    [
        "supervised_head.linear_layer.dense.bias",
        "head_supervised/linear_layer/dense/bias:0",
        "target_model/head_supervised/linear_layer/dense/bias",
        "target_model/conv2d_3/kernel",
        "teacher/batch_normalization/gamma",
    ],
)
def test_a_variable_under_two_names_is_refused(tf1, second):
    doubled = {**tf1, second: np.zeros(3, np.float32)}
    for variables in (doubled, dict(reversed(doubled.items()))):
        with pytest.raises(ValueError, match="are the same variable"):
            from_reference(variables)


AVERAGES = {
    "authors": "ema_model/{}",
    "tf1": "{}/ExponentialMovingAverage",
    "objects": "model.ema_model.{}/.ATTRIBUTES/VARIABLE_VALUE",
}


@pytest.mark.parametrize("form", AVERAGES)
def test_of_weights_and_their_averages_one_set_is_taken_and_nothing_of_the_other(form):
    """Whatever the order in which the checkpoint lists them."""
    tf1 = named(variables_of(depth=10, width=0.125, stem="small", classes=3))["tf1"]
    averages = {AVERAGES[form].format(name): array + 1 for name, array in tf1.items()}
    plain = from_reference(tf1)
    for variables in ({**tf1, **averages}, {**averages, **tf1}):
        chex.assert_trees_all_equal(from_reference(variables)[1:], plain[1:])
        taken = from_reference(variables, averages=True)
        assert taken[0] == plain[0]
        chex.assert_trees_all_equal(taken[1:], jax.tree.map(lambda x: x + 1, plain[1:]))
    missing = next(name for name in averages if "beta" in name)
    del averages[missing]
    with pytest.raises(ValueError, match="missing: "):
        from_reference({**tf1, **averages}, averages=True)


def test_averages_that_are_not_there_or_are_alone_are_told(tf1):
    with pytest.raises(ArgumentError, match=r"averages=True: .* no moving averages"):
        from_reference(tf1, averages=True)
    with pytest.raises(ArgumentError, match=r"averages=False: .* nothing but moving averages"):
        from_reference({f"ema_model/{name}": array for name, array in tf1.items()})


@pytest.mark.parametrize(
    ("layers", "dim", "rows", "fitting"),
    [
        (0, 128, 32, ["h"]),
        (3, 20, 32, ["h", "head1", "head2"]),
        (3, 20, 20, ["head3"]),
        (2, 32, 32, ["h", "head1", "head2"]),
        (2, 20, 21, []),
    ],
)
def test_where_a_classifier_sits_is_told_by_its_width_as_far_as_that_goes(
    layers, dim, rows, fitting
):
    widths = [32] * layers + [dim]
    head = {f"dense{k}": {"kernel": np.zeros((32, widths[k]))} for k in range(1, layers + 1)}
    params = {"head": head, "classifier": {"dense": {"kernel": np.zeros((rows, 3))}}}
    assert classifier_layers(params) == fitting


def test_a_classifier_is_put_where_it_is_said_to_sit():
    network = {"depth": 10, "width": 0.25, "stem": "small", "head_layers": 3, "head_dim": 20}
    for layer, taken in (("h", "h"), ("head2", "h"), ("head3", "head3")):
        variables = variables_of(**network, classes=3, classifier_layer=layer)
        names = named(variables)["object"]
        assert from_reference(names)[0].classifier_layer == taken
        config, params, _ = from_reference(names, classifier_layer=layer)
        assert config.classifier_layer == layer
        chex.assert_trees_all_equal(params, variables["params"])
    with pytest.raises(ArgumentError, match="classifier_layer='head9': the classifier fits head3"):
        from_reference(names, classifier_layer="head9")
    with pytest.raises(ArgumentError, match="classifier_layer='h': there is none"):
        from_reference(named(variables_of(**network))["tf1"], classifier_layer="h")
