"""Checkpoints: which are kept, and that what is read is what was saved."""

import gc
import shutil
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from simclr_jax import cli
from simclr_jax import mesh as meshes
from simclr_jax import state as states
from simclr_jax.errors import ArgumentError, FileError, HostError
from simclr_jax.state import TrainState
from simclr_jax.store import checkpoint, digests, restore
from support import damage


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
    saved = checkpoint.Checkpoints(workdir, keep=2)
    for step, value in enumerate(results, 1):
        saved.remember(step, {} if value is None else {best: value})
        saved.save(step, state_at(step, mesh), {"config": {"step": step}})
    saved.close()


@pytest.mark.parametrize(
    ("best", "results", "kept"),
    [
        ("eval_top1", [0.1, 0.9, 0.2, 0.3, 0.4], [2, 4, 5]),
        ("eval_loss", [3.0, 1.0, 2.0, 4.0, 5.0], [2, 4, 5]),
        ("eval_top1", [None, 0.5, None, None, None], [2, 4, 5]),
        ("eval_loss", [float("nan"), 1.0, 2.0, 4.0, 5.0], [2, 4, 5]),
        ("eval_top1", [None] * 5, [4, 5]),
        ("eval_top1", [0.1, 0.2, 0.3, 0.4, 0.5], [4, 5]),
    ],
)
def test_the_latest_and_the_best_are_kept(tmp_path, mesh8, best, results, kept):
    save(tmp_path, mesh8, results, best)
    assert checkpoint.Reader(tmp_path).steps() == kept


def test_where_all_have_both_scores_the_best_is_the_most_accurate_alone():
    policy = checkpoint._LatestAndBest(1)
    for step, (top1, loss) in enumerate([(0.9, 3.0), (0.2, 1.0), (0.3, 2.0)], 1):
        policy.add(step, {"eval_top1": top1, "eval_loss": loss})
    saved = [SimpleNamespace(step=step) for step in (1, 2, 3)]
    assert policy.should_preserve(saved, context=None) == [True, False, True]


def test_the_best_is_remembered_by_the_next_process(tmp_path, mesh8):
    save(tmp_path, mesh8, [0.1, 0.9, 0.2], "eval_top1")
    rows = [{"step": step, "eval_top1": top1} for step, top1 in ((1, 0.1), (2, 0.9), (3, 0.2))]
    saved = checkpoint.Checkpoints(tmp_path, keep=1, rows=rows)
    for step in (4, 5, 6):
        saved.remember(step, {"eval_top1": 0.5})
        saved.save(step, state_at(step, mesh8), {"config": {}})
    saved.close()
    assert checkpoint.Reader(tmp_path).steps() == [2, 6]


def test_what_is_restored_is_what_was_saved(tmp_path, mesh8, mesh1):
    """Saved from eight devices, restored on eight, and on one."""
    save(tmp_path, mesh8, [0.1, 0.2, 0.3], "eval_top1")
    saved = checkpoint.Checkpoints(tmp_path, keep=2)
    for mesh in (mesh8, mesh1):
        configs = []
        step, restored = saved.restore_newest(abstract(mesh), configs.append)
        assert (step, configs) == (3, [{"config": {"step": 3}}])
        chex.assert_trees_all_equal(restored, state_at(3, mesh))
        for leaf in jax.tree.leaves(restored):
            assert leaf.sharding == meshes.replicated(mesh)
    saved.close()


def test_a_state_that_is_split_over_devices_is_saved_as_one_that_is_not(tmp_path, mesh8, mesh1):
    """It is restored whole on eight devices and on one, and has the digests of the whole."""
    state = state_at(1, mesh8)
    kernel = {"kernel": jnp.arange(80.0).reshape(5, 16)}
    state = state.replace(params=kernel, opt_state=optax.sgd(0.1, momentum=0.9).init(kernel))
    state = state.replace(opt_state=jax.tree.map(lambda x: x + 1, state.opt_state))
    placed = states.shardings(lambda: state, mesh8, divide=True)
    split = jax.device_put(state, placed)
    assert split.opt_state[0].trace["kernel"].addressable_data(0).shape == (5, 2)
    saved = checkpoint.Checkpoints(tmp_path, keep=2)
    saved.save(1, split, {})
    for mesh in (mesh8, mesh1):
        wanted = states.abstract(lambda: state, mesh)
        chex.assert_trees_all_equal(saved.restore_newest(wanted, lambda config: None)[1], state)
    saved.close()
    found, _ = checkpoint.Reader(tmp_path).described(1)
    assert found["arrays"] == digests.of_arrays(checkpoint.items(state))


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


def test_only_a_step_is_a_step_whatever_else_lies_there(tmp_path):
    """Copies by hand, unfinished ones, and what file browsers and other tools leave."""
    for name in (
        "3", "30", "backup_99999", "30_copy_30", "4 (copy)", "007", "-4", "+5", "1e3", "8\n",
        "1\u0663", "step_7", "9.orbax-checkpoint-tmp-1", "3.gstmp", ".ipynb_checkpoints", "damaged",
    ):  # fmt: skip
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    (tmp_path / "checkpoints/5").touch()
    assert checkpoint.Reader(tmp_path).steps() == [3, 30]


def test_a_reader_of_nothing_finds_nothing(tmp_path):
    assert checkpoint.Reader(tmp_path).steps() == []


def saved_twice(workdir, mesh):
    """Checkpoints 1 and 2, and every file of the second."""
    save(workdir, mesh, [0.1, 0.2], "eval_top1")
    return sorted(path for path in (workdir / "checkpoints/2").rglob("*") if path.is_file())


@pytest.fixture(autouse=True)
def quiet():
    """What Orbax has to say of reads that it gives up is no failure."""
    checkpoint.quiet()


def restored(workdir, mesh):
    """(step, whether the state is that step's)."""
    saved = checkpoint.Checkpoints(workdir, keep=2)
    step, state = saved.restore_newest(abstract(mesh), lambda config: None)
    saved.close()
    pairs = zip(*map(jax.tree.leaves, (state, state_at(step, mesh))), strict=True)
    return step, all(np.array_equal(a, b) for a, b in pairs)


@pytest.mark.parametrize("harm", [damage.flip_a_bit, damage.cut_short, damage.remove])
def test_whatever_file_is_damaged_no_wrong_number_is_restored(tmp_path, mesh1, harm):
    """Each file in turn: the step before is used, or what was damaged held no numbers.

    The folder's name says what an error would that is not the checkpoint's fault.
    """
    tmp_path = tmp_path / "UNAVAILABLE memory"
    files = saved_twice(tmp_path / "whole", mesh1)
    assert len(files) > 8
    used_before = 0
    for number, file in enumerate(files):
        workdir = tmp_path / str(number)
        shutil.copytree(tmp_path / "whole", workdir)
        harm(workdir / file.relative_to(tmp_path / "whole"))
        step, right = restored(workdir, mesh1)
        assert right, file
        if step == 1:
            used_before += 1
            assert (workdir / "damaged/2").is_dir()
            assert not (workdir / "checkpoints/2").exists()
    assert used_before >= 3
    gc.collect()  # of the reads that Orbax gives up


def test_damage_that_orbax_does_not_see_is_seen(tmp_path, mesh1, monkeypatch):
    """Numbers that changed between saving and reading, in an otherwise whole checkpoint."""
    saved_twice(tmp_path, mesh1)
    real = restore._restore

    def other(manager, step, **items):
        found = dict(real(manager, step, **items).items())
        if step == 2 and "model" in found:
            found["model"]["params"]["encoder"]["conv"]["kernel"] *= 1 + 2e-7
        return found

    monkeypatch.setattr(restore, "_restore", other)
    assert restored(tmp_path, mesh1) == (1, True)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (OSError(5, "Input/output error"), 2),  # once: read again
        (OSError(116, "Stale file handle"), HostError),
        (ValueError("UNAVAILABLE: Error reading gs://bucket/run"), HostError),
    ],
)
def test_a_read_that_fails_condemns_no_checkpoint(tmp_path, mesh1, monkeypatch, error, expected):
    saved_twice(tmp_path, mesh1)
    real, errors = checkpoint.ocp.CheckpointManager.restore, [error]

    def fail_once(self, *args, **kwargs):
        if errors:
            raise errors.pop()
        return real(self, *args, **kwargs)

    monkeypatch.setattr(checkpoint.ocp.CheckpointManager, "restore", fail_once)
    if expected is HostError:
        with pytest.raises(HostError, match="checkpoints/2: cannot be read"):
            restored(tmp_path, mesh1)
    else:
        assert restored(tmp_path, mesh1) == (expected, True)
    assert checkpoint.Reader(tmp_path).steps() == [1, 2]


def test_where_none_is_good_nothing_is_moved_and_the_run_does_not_begin_again(tmp_path, mesh1):
    saved_twice(tmp_path, mesh1)
    for step in (1, 2):
        damage.flip_a_bit(tmp_path / f"checkpoints/{step}/digests/metadata")
    saved = checkpoint.Checkpoints(tmp_path, keep=2)
    for _ in range(2):
        with pytest.raises(ArgumentError, match="none of its 2 checkpoints is good"):
            saved.restore_newest(abstract(mesh1), lambda config: None)
        assert saved.steps() == [1, 2]
    saved.close()


def test_a_checkpoint_under_another_number_is_not_taken_for_that_one(tmp_path, mesh1):
    saved_twice(tmp_path, mesh1)
    (tmp_path / "checkpoints/2").rename(tmp_path / "checkpoints/7")
    assert restored(tmp_path, mesh1) == (1, True)
    assert (tmp_path / "damaged/7").is_dir()


@pytest.mark.parametrize(
    "error", [FileNotFoundError(2, "No such file", "1.tmp"), ValueError("NOT_FOUND: 1.tmp/d/a")]
)
def test_a_save_whose_folder_is_gone_ends_with_a_line(tmp_path, mesh1, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    saved = checkpoint.Checkpoints(tmp_path, keep=2)
    for name in ("save", "check_for_errors", "wait_until_finished"):
        monkeypatch.setattr(saved._manager, name, fail)
    for write in (lambda: saved.save(1, state_at(1, mesh1), {}), saved.raise_failure, saved.wait):
        with pytest.raises(HostError, match="checkpoints: cannot be written"):
            write()
    monkeypatch.undo()
    saved.close()


def test_an_evaluation_says_of_a_pruned_checkpoint_that_it_is_gone(tmp_path, mesh1):
    saved_twice(tmp_path, mesh1)
    reader = checkpoint.Reader(tmp_path)
    shutil.rmtree(tmp_path / "checkpoints/1")
    with pytest.raises(FileError, match="checkpoints/1: is gone"):
        reader.config(1)


@pytest.mark.parametrize("name", ["run[1]", "a*b", "what?", "back\\slash", "\udcff"])
def test_folders_below_which_orbax_finds_nothing_again_are_refused(name):
    with pytest.raises(ArgumentError, match="no checkpoint can be read below") as error:
        checkpoint.check_path(f"/runs/{name}/seed 0", argument="workdir")
    line = str(cli.named(error.value))
    assert line.startswith("--workdir='/runs/")
    assert line.isascii()
    checkpoint.check_path("/runs/it's {fine} ünï #1", argument="workdir")


def test_another_networks_checkpoint_is_named_and_stays(tmp_path, mesh1):
    saved_twice(tmp_path, mesh1)
    saved = checkpoint.Checkpoints(tmp_path, keep=2)
    shapes = abstract(mesh1)
    kernel = jax.ShapeDtypeStruct((3, 3), np.float32, sharding=meshes.replicated(mesh1))
    other = shapes.replace(params={"encoder": {"conv": {"kernel": kernel}}})
    with pytest.raises(
        FileError, match=r"conv/kernel is float32\(2, 3\) there and float32\(3, 3\)"
    ):
        saved.restore_newest(other, lambda config: None)
    assert saved.steps() == [1, 2]
    saved.close()


def test_an_evaluation_refuses_a_damaged_checkpoint(tmp_path, mesh1):
    saved_twice(tmp_path, mesh1)
    damage.flip_a_bit(tmp_path / "checkpoints/2/digests/metadata")
    expected = abstract(mesh1)
    wanted = {"params": expected.params, "batch_stats": expected.batch_stats}
    with pytest.raises(FileError, match="checkpoints/2: is damaged"):
        checkpoint.Reader(tmp_path).model(2, wanted)
    assert checkpoint.Reader(tmp_path).model(1, wanted)
