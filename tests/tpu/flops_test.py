"""The analytic count against what XLA counts, and against the published figure."""

import jax
import numpy as np
import pytest

from simclr_jax import state as states
from simclr_jax.config import default, parts
from simclr_jax.run import teacher
from simclr_jax.tpu import compiled, flops


def test_resnet50_takes_the_published_multiplications():
    """4.1 G multiply-adds at 224 px (He et al. 2015 have 3.8, their stride on the 1x1)."""
    config = default.get_config()
    config.update({"data": {"num_classes": 0, "num_examples": 1}})
    assert sum(flops.of_network(config)) / 2 == pytest.approx(4.09e9, rel=0.005)


@pytest.mark.parametrize("sk_ratio", [0.0, 0.25])
def test_the_count_is_xlas_but_for_element_wise_work(sk_ratio):
    config = default.get_config()
    config.data.update(num_classes=10, num_examples=100, image_size=32)
    config.model.update(depth=14, width=0.5, sk_ratio=sk_ratio, stem="imagenet")
    model = parts.model(config)
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), "float32")
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), images)
    lowered = jax.jit(lambda v, x: model.apply(v, x, train=False)).lower(variables, images)
    counted = lowered.cost_analysis()["flops"]
    assert 0.85 < sum(flops.of_network(config)) / counted < 1.15


@pytest.mark.parametrize(("size", "stem"), [(8, "auto"), (64, "imagenet")])
def test_a_convolution_counts_once_whatever_computes_it(size, stem):
    config = default.get_config()
    config.data.update(num_classes=0, num_examples=1, image_size=size)
    config.model.update(depth=18, width=0.125, stem=stem)
    model = parts.model(config)
    x = jax.ShapeDtypeStruct((1, size, size, 3), "float32")
    variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), x)
    paths = [path for path, _ in jax.tree.leaves_with_path(variables["params"])]
    kernels = [path for path in paths if path[-1].key == "kernel"]
    assert len(flops.of_network(config)) == len(kernels)


def test_of_frozen_layers_only_the_forward_pass_counts():
    config = default.get_config()
    config.data.update(num_classes=10, num_examples=100, image_size=32)
    config.model.update(depth=10, width=0.125)
    config.objective.name = "supervised"
    config.train.batch_size = 1
    forward = flops.of_network(config)
    assert len(forward) == 1 + 3 * 4 + 1  # The stem, three convolutions a block, the classifier.
    assert flops.of_step(config) == 3 * sum(forward) - forward[0]
    config.train.frozen = "stage1"
    assert flops.of_step(config) == sum(forward) + 2 * sum(forward[4:]) - forward[4]
    config.train.frozen = "encoder"
    assert flops.of_step(config) == sum(forward) + forward[-1]


@pytest.mark.parametrize(
    ("name", "candidates", "forward"),
    [("nt_xent", 20, 1.25), ("dcl", 20, 1.25), ("nt_logistic", 10, 1), ("margin_triplet", 10, 1)],
)
def test_the_loss_is_three_products_of_all_views_with_its_candidates(name, candidates, forward):
    """Those that the traced loss computes in one block; its backward pass computes it again.

    The entropy, a metric, takes a quarter of the logits of the losses in tiles once more.
    """
    config = default.get_config()
    config.train.batch_size, config.model.head_dim, config.loss.name = 10, 7, name
    assert flops.of_loss(config) == 3 * 2 * 20 * candidates * 7
    traced = jax.make_jaxpr(parts.loss(config, 10))(*np.zeros((2, 10, 7), np.float32))
    dots = sum(flops._products(traced.jaxpr))
    assert dots == pytest.approx(forward * 2 * 20 * candidates * 7)


def test_a_teacher_costs_a_forward_pass_a_view_and_the_step_lowers_with_its_shapes_alone(mesh8):
    """Without a run that is named, the teacher is a network like the student."""
    config = default.get_config()
    config.data.update(num_classes=10, num_examples=100, image_size=16)
    config.model.update(depth=10, width=1 / 16)
    config.train.batch_size, config.objective.name = 16, "supervised"
    alone, forward = flops.of_step(config), sum(flops.of_network(config))
    config.objective.name = "distill"
    assert flops.of_step(config) == alone + 16 * forward
    built = parts.build(config, mesh8, teacher.shapes(config, mesh8))
    state = states.abstract(built.initial, mesh8)
    lowered = built.jitted.lower(state, compiled.batch(config, mesh8), built.objective)
    assert states.nbytes(built.objective) == states.nbytes((state.params, state.batch_stats))
    (_, metrics) = lowered.out_info
    assert {"distillation_loss", "classifier_loss", "teacher_agreement"} <= metrics.keys()
