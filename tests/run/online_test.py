"""Evaluation while training, against the same numbers computed without padding or masks."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simclr_jax import losses
from simclr_jax.models.simclr import SimCLR
from simclr_jax.objectives.contrastive import Contrastive
from simclr_jax.run.online import OnlineEvaluation
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
        yield {"image": views[rows], "blur_sigma": np.zeros((BATCH, 2), np.float32)}


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
        objective=Contrastive(model, loss), mesh=mesh8, num_examples=COUNT, batch_size=BATCH,
        views=lambda: pairs(views), images=lambda: padded(images, labels),
    )  # fmt: skip
    state = TrainState(jnp.zeros([]), variables["params"], variables["batch_stats"], ())
    found = evaluate(state)

    logits = model.apply(variables, images, train=False).logits
    assert found["eval_top1"] == np.mean(logits.argmax(axis=1) == labels)
    z = model.apply(variables, views.reshape(-1, 8, 8, 3), train=False).z[-1].reshape(COUNT, 2, -1)
    chunks = [z[start : start + BATCH] for start in range(0, COUNT, BATCH)]
    expected = sum(float(loss(c[:, 0], c[:, 1])[0]) * len(c) for c in chunks) / COUNT
    np.testing.assert_allclose(found["eval_loss"], expected, rtol=1e-4)
