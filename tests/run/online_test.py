"""Evaluation while training, against the same numbers computed without padding or masks."""

from functools import partial
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from simclr_jax import losses
from simclr_jax.config import overrides, parts
from simclr_jax.data.readable import Readable
from simclr_jax.data.synthetic import Photos
from simclr_jax.models.simclr import SimCLR
from simclr_jax.objectives.distilled import Teacher
from simclr_jax.run import online
from simclr_jax.run.online import Compared, OnlineEvaluation, imitate
from simclr_jax.state import TrainState

COUNT, BATCH = 41, 16  # two full batches and one of nine


def padded(images, labels):
    """Batches as the pipeline makes them: the last one padded and masked."""
    for start in range(0, COUNT, BATCH):
        rows = np.minimum(np.arange(start, start + BATCH), COUNT - 1)
        mask = np.arange(start, start + BATCH) < COUNT
        yield {"image": images[rows], "label": labels[rows], "mask": mask}


def pairs(views):
    """Batches of views; the last one goes on into the next epoch."""
    for start in range(0, COUNT, BATCH):
        rows = np.arange(start, start + BATCH) % COUNT
        mask = np.arange(start, start + BATCH) < COUNT
        yield {"image": views[rows], "blur_sigma": np.zeros((BATCH, 2), np.float32), "mask": mask}


@pytest.mark.slow
def test_evaluation_counts_every_example_once(rng, mesh8):
    model = SimCLR(depth=10, width=1 / 16, stem="small", head_dim=8, classes=5)
    blank = jnp.zeros((1, 8, 8, 3))
    variables = jax.jit(lambda: model.init(jax.random.key(0), blank, train=False))()
    variables["params"]["classifier"]["dense"]["kernel"] *= 1000.0  # so that predictions differ
    images = rng.uniform(size=(COUNT, 8, 8, 3)).astype(np.float32)
    views = rng.uniform(size=(COUNT, 2, 8, 8, 3)).astype(np.float32)
    labels = rng.integers(0, 5, COUNT).astype(np.int32)
    loss = partial(losses.nt_xent, temperature=0.5)
    evaluate = OnlineEvaluation(
        model=model, mesh=mesh8, compared=Compared(loss, BATCH, lambda: pairs(views)),
        images=lambda: padded(images, labels),
    )  # fmt: skip
    state = TrainState(jnp.zeros([]), variables["params"], variables["batch_stats"], ())
    found = evaluate(state)

    logits = model.apply(variables, images, train=False).logits
    assert found["eval_top1"] == np.mean(logits.argmax(axis=1) == labels)
    z = model.apply(variables, views.reshape(-1, 8, 8, 3), train=False).z[-1].reshape(COUNT, 2, -1)
    chunks = [z[start : start + BATCH] for start in range(0, COUNT, BATCH)]
    expected = sum(float(loss(c[:, 0], c[:, 1])[0]) * len(c) for c in chunks) / COUNT
    np.testing.assert_allclose(found["eval_loss"], expected, rtol=1e-4)

    labels[[3, 40]] = -1
    evaluate = OnlineEvaluation(
        model=model, mesh=mesh8, compared=None, images=lambda: padded(images, labels)
    )
    found, known = evaluate(state), labels >= 0
    assert found["eval_top1"] == np.mean((logits.argmax(axis=1) == labels)[known])
    log_p = log_softmax(np.asarray(logits, np.float64), axis=1)
    expected = -np.mean(log_p[np.arange(COUNT), labels][known])
    np.testing.assert_allclose(found["eval_loss"], expected, rtol=1e-4)

    several = rng.integers(-1, 2, (COUNT, 5), np.int8)
    evaluate = OnlineEvaluation(
        model=model, mesh=mesh8, compared=None, images=lambda: padded(images, several),
        multilabel=True,
    )  # fmt: skip
    found, known = evaluate(state), several >= 0
    assert set(found) == {"eval_loss", "eval_binary_accuracy"}
    assert found["eval_binary_accuracy"] == np.mean(((logits > 0) == (several == 1))[known])
    signed = np.where(several == 1, 1, -1) * np.asarray(logits, np.float64)
    np.testing.assert_allclose(found["eval_loss"], np.logaddexp(0, -signed)[known].mean(), 1e-4)


def test_without_labels_a_student_is_judged_by_how_often_it_agrees_with_its_teacher(rng):
    """A masked image counts for nothing; the networks are stand-ins whose logits are pixels."""

    def network(scale):
        def apply(variables, images, train):
            return SimpleNamespace(logits=scale * images[:, 0, :, 0])

        return SimpleNamespace(apply=apply)

    images = rng.normal(size=(6, 1, 4, 3)).astype(np.float32)
    mask = np.array([True, True, False, True, True, False])
    teacher = Teacher(network(np.array([1.0, 1.0, 1.0, -2.0], np.float32)), {})
    batch = {"image": images, "mask": mask}
    same, count, loss, _ = imitate({}, batch, teacher, model=network(3.0), temperature=2.0)
    student, taught = 3 * images[mask, 0, :, 0], images[mask, 0, :, 0] * [1, 1, 1, -2]
    assert count == 4
    assert same == np.sum(student.argmax(axis=1) == taught.argmax(axis=1)) < 4
    expected = -np.sum(softmax(taught / 2, axis=1) * log_softmax(student / 2, axis=1)) * 2**2
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


@pytest.mark.parametrize("asked", [32])
def test_the_network_takes_a_microbatch_at_a_time_and_the_loss_compares_as_before(
    asked, mesh8, monkeypatch
):
    """The views are the same ones, bit for bit, in the same order."""
    monkeypatch.setattr(online, "OnlineEvaluation", lambda **arguments: arguments)
    whole, parted = (opened(mesh8, microbatches, asked) for microbatches in (1, 4))
    assert whole["compared"].batch_size == parted["compared"].batch_size == (asked or 64)
    opened_both = (parted["compared"].views, parted["images"])
    assert {len(batch["image"]) for batches in opened_both for batch in batches()} == {16}
    joined = [
        np.concatenate([batch["image"] for batch in evaluation["compared"].views()])[:COUNT]
        for evaluation in (whole, parted)
    ]
    np.testing.assert_array_equal(*joined)


def test_an_unreadable_image_is_masked_in_both_views_and_images(mesh8, monkeypatch):
    """Image 7 is replaced by image 8, which still counts once."""
    monkeypatch.setattr(online, "OnlineEvaluation", lambda **arguments: arguments)
    found = opened(mesh8, 1, None, source=Readable(Torn(7), on_bad_image="replace"))
    for batches in (found["compared"].views, found["images"]):
        masks = np.concatenate([batch["mask"] for batch in batches()])
        assert masks.sum() == COUNT - 1
        assert len(masks) == 64


class Torn(Photos):
    """COUNT photographs, of which one cannot be read."""

    def __init__(self, torn):
        super().__init__(COUNT, width=16, height=16)
        self.torn = torn

    def load(self, indices):
        images, labels = super().load(indices)
        torn = np.asarray(indices) == self.torn
        return [b"" if gone else image for image, gone in zip(images, torn, strict=True)], labels


def opened(mesh, microbatches, asked, source=None):
    """The arguments of the evaluation of COUNT digits, with its number of microbatches."""
    config = overrides.load(["--config=digits"])
    config = overrides.changed(config, {
        "data.num_examples": 1000, "data.num_classes": 10, "data.image_size": 8,
        "train.batch_size": 64, "train.microbatches": microbatches, "eval.batch_size": asked,
        "model.width": 0.0625,
    })  # fmt: skip
    source = source or Readable(Photos(COUNT, width=16, height=16), on_bad_image="error")
    return online.open_evaluation(config, parts.build(config, mesh), source)
