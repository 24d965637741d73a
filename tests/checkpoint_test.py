"""Checkpoints: which are kept, and that what is read is what was saved."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from simclr_jax import checkpoint
from simclr_jax import mesh as meshes
from simclr_jax.state import TrainState


def state_at(step, mesh):
    """A state all of whose numbers depend on the step."""
    params = {"encoder": {"conv": {"kernel": jnp.full((2, 3), float(step))}}}
    return jax.device_put(
        TrainState(
            step=jnp.asarray(step, jnp.int32),
            params=params,
            batch_stats={"encoder": {"bn": {"mean": jnp.full(3, step / 2)}}},
            opt_state=optax.sgd(0.1, momentum=0.9).init(params),
        ),
        meshes.replicated(mesh),
    )


def abstract(mesh):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=meshes.replicated(mesh)),
        jax.eval_shape(lambda: state_at(0, mesh)),
    )


def save(workdir, mesh, results, best):
    saved = checkpoint.Checkpoints(workdir, keep=2, best=best)
    for step, value in enumerate(results, 1):
        metrics = None if value is None else {best: value}
        saved.save(step, state_at(step, mesh), {"config": {"step": step}}, metrics)
    saved.close()


@pytest.mark.parametrize(
    ("best", "results", "kept"),
    [
        ("eval_top1", [0.1, 0.9, 0.2, 0.3, 0.4], [2, 4, 5]),
        ("eval_loss", [3.0, 1.0, 2.0, 4.0, 5.0], [2, 4, 5]),
        ("eval_top1", [None, 0.5, None, None, None], [2, 4, 5]),
        ("eval_top1", [None] * 5, [4, 5]),
        ("eval_top1", [0.1, 0.2, 0.3, 0.4, 0.5], [4, 5]),
    ],
)
def test_the_latest_and_the_best_are_kept(tmp_path, mesh8, best, results, kept):
    save(tmp_path, mesh8, results, best)
    assert checkpoint.Reader(tmp_path).steps() == kept


def test_the_best_is_remembered_by_the_next_process(tmp_path, mesh8):
    save(tmp_path, mesh8, [0.1, 0.9, 0.2], "eval_top1")
    saved = checkpoint.Checkpoints(tmp_path, keep=1, best="eval_top1")
    for step in (4, 5, 6):
        saved.save(step, state_at(step, mesh8), {"config": {}}, {"eval_top1": 0.5})
    saved.close()
    assert checkpoint.Reader(tmp_path).steps() == [2, 6]


def test_what_is_restored_is_what_was_saved(tmp_path, mesh8, mesh1):
    """Saved from eight devices, restored on eight, and on one."""
    save(tmp_path, mesh8, [0.1, 0.2, 0.3], "eval_top1")
    saved = checkpoint.Checkpoints(tmp_path, keep=2, best="eval_top1")
    assert saved.latest_step() == 3
    assert saved.restore_config(3) == {"config": {"step": 3}}
    for mesh in (mesh8, mesh1):
        restored = saved.restore(3, abstract(mesh))
        assert jax.tree.structure(restored) == jax.tree.structure(state_at(3, mesh))
        for a, b in zip(*map(jax.tree.leaves, (restored, state_at(3, mesh))), strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.sharding == meshes.replicated(mesh)
    saved.close()


def test_a_reader_restores_the_model_alone_and_changes_nothing(tmp_path, mesh8):
    save(tmp_path, mesh8, [0.1, 0.2, 0.3], "eval_top1")
    before = sorted(path for path in tmp_path.rglob("*"))
    reader = checkpoint.Reader(tmp_path)
    expected = abstract(mesh8)
    model = reader.model(2, {"params": expected.params, "batch_stats": expected.batch_stats})
    assert set(model) == {"params", "batch_stats"}
    np.testing.assert_array_equal(model["params"]["encoder"]["conv"]["kernel"], np.full((2, 3), 2))
    assert reader.config(2) == {"config": {"step": 2}}
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_a_reader_of_nothing_finds_nothing(tmp_path):
    assert checkpoint.Reader(tmp_path).steps() == []
