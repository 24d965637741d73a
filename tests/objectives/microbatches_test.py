"""Two passes over microbatches give the gradients of one pass over the batch."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simclr_jax import losses
from simclr_jax import mesh as meshes
from simclr_jax.augment.device import views_of
from simclr_jax.losses import cross_entropy
from simclr_jax.models.norm import BATCH_NORM_MOMENTUM
from support.steps import BATCH, batches, build, nt_xent, run, worst

COUNT = 3


def mined(mesh):
    """A loss whose choice of negatives is discontinuous, in blocks."""
    return partial(
        losses.margin_triplet, margin=0.8, mining="semi_hard", block_rows=BATCH,
        gather=partial(meshes.replicate, mesh=mesh),
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("loss", [lambda mesh: None, mined], ids=["nt_xent", "mined"])
def test_with_moving_averages_microbatches_on_eight_devices_equal_the_whole_batch(
    loss, mesh1, mesh8
):
    """Gradients, statistics, parameters and metrics of three steps, with recomputation by stage."""
    with jax.enable_x64(True):
        whole = run(mesh1, running_norm=True, loss=loss(mesh1))
        divided = run(mesh8, running_norm=True, microbatches=COUNT, remat="stage", loss=loss(mesh8))
    assert worst(whole, divided) < 1e-9


@pytest.mark.slow
def test_with_their_own_statistics_microbatches_equal_the_plain_computation(mesh8):
    """Every microbatch through the network at once, kept, and differentiated as one function.

    The labels of two microbatches are missing in part, and all labelled images count the same.
    """
    with jax.enable_x64(True):
        state, step = build(jnp.float64, mesh=mesh8, microbatches=COUNT, remat="block")
        batch = next(batches())
        batch["label"][[0, 3, 6, 7]] = -1
        model = step.keywords["objective"].objective.model.clone(remat="none")
        divided = [{key: x[r::COUNT] for key, x in batch.items()} for r in range(COUNT)]

        def plain(params):
            z, logits, updated = [], [], []
            for rows in divided:
                outputs, new = model.apply(
                    {"params": params, "batch_stats": state.batch_stats},
                    views_of(rows), train=True, mutable=["batch_stats"],
                )  # fmt: skip
                z.append(outputs.z[-1].reshape(-1, 2, 6))
                logits.append(outputs.logits)
                updated.append(new["batch_stats"])
            together = jnp.stack(z, axis=1).reshape(BATCH, 2, 6)
            contrastive, _ = nt_xent(together[:, 0], together[:, 1])
            labels = np.concatenate([rows["label"] for rows in divided]).repeat(2)
            classified, _ = cross_entropy(jnp.concatenate(logits), labels)
            return contrastive + classified, updated

        expected, updated = jax.jit(jax.grad(plain, has_aux=True))(state.params)
        after, metrics = jax.jit(step)(state, batch)
        recorded = after.opt_state[0].gradient  # with the decay of the classifier, as LARS has it
        kernel = state.params["classifier"]["dense"]["kernel"]
        expected["classifier"]["dense"]["kernel"] += 1e-2 * kernel
        assert worst(expected, recorded) < 1e-9
        assert worst(_whole(updated, state.batch_stats), after.batch_stats) < 1e-9
    assert np.isfinite(metrics["loss"])


def _whole(updated, before):
    """Moving averages after a batch, from each microbatch's mean and mean square."""
    if set(before) != {"mean", "var"}:
        return {key: _whole([u[key] for u in updated], before[key]) for key in before}
    step = 1 - BATCH_NORM_MOMENTUM

    def own(key):
        return np.stack([(u[key] - BATCH_NORM_MOMENTUM * before[key]) / step for u in updated])

    mean = own("mean").mean(axis=0)
    var = (own("var") + own("mean") ** 2).mean(axis=0) - mean**2
    return {
        "mean": BATCH_NORM_MOMENTUM * before["mean"] + step * mean,
        "var": BATCH_NORM_MOMENTUM * before["var"] + step * var,
    }
