"""TensorFlow's files, written by TensorFlow, as the authors' code would have."""

import shutil

import chex
import numpy as np
import pytest
import tensorflow as tf

from simclr_jax.errors import ArgumentError
from simclr_jax.models.simclr import SimCLR
from simclr_jax.weights import tf_files
from simclr_jax.weights.authors import from_reference
from support import tf1
from support.authors_names import named


@pytest.fixture(scope="module")
def variables():
    import jax
    import jax.numpy as jnp

    model = SimCLR(depth=10, width=0.0625, stem="small", classes=3, sk_ratio=0.0, se_ratio=0.5)
    images = jnp.zeros((1, 8, 8, 3))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32), shapes)


def assert_same(found, variables):
    _, params, batch_stats = from_reference(found)
    converted = {"params": params, "batch_stats": batch_stats}
    chex.assert_trees_all_equal(converted, dict(variables), strict=True)


def write_tf1(prefix, variables, **extra):
    arrays = named(variables)["tf1"]
    slots = {f"{name}/Momentum": np.ones_like(array) for name, array in arrays.items()}
    tf1.write(prefix, {**arrays, **slots, "global_step": np.int64(321), **extra})


class Node(tf.Module):
    """An object of the authors' model; positions of a list are attributes here."""


def object_model(variables):
    """Objects whose paths are the authors'."""
    root = Node()
    for path, array in named(variables)["object"].items():
        node = root
        *parents, leaf = path.split(".")
        for part in parents:
            if not hasattr(node, part):
                setattr(node, part, Node())
            node = getattr(node, part)
        setattr(node, leaf, tf.Variable(array, name=leaf))
    return root


def test_tf1_checkpoints_by_prefix_index_or_folder(tmp_path, variables):
    write_tf1(tmp_path / "model.ckpt-321", variables)
    for path in (tmp_path / "model.ckpt-321", tmp_path / "model.ckpt-321.index", tmp_path):
        found, step = tf_files.read(str(path))
        assert step == 321
        assert_same(found, variables)


def test_tf2_checkpoints_by_where_the_objects_are(tmp_path, variables):
    optimizer = Node()
    optimizer.iterations = tf.Variable(5, dtype=tf.int64)
    saved = tf.train.Checkpoint(
        model=object_model(variables), optimizer=optimizer,
        global_step=tf.Variable(77, dtype=tf.int64),
    )  # fmt: skip
    path = saved.save(str(tmp_path / "ckpt"))
    found, step = tf_files.read(path)
    assert step == 77
    assert "model.resnet_model.block_groups.0.layers.0.conv2d_bn_layers.0.conv2d.kernel" in found
    assert_same(found, variables)


@pytest.fixture
def doubled(variables):
    """(model, averages, variables of the averages) as objects."""
    import jax

    other = jax.tree.map(lambda array: array + 1, variables)
    return object_model(variables), object_model(other), other


def assert_both(found, variables, averages):
    assert_same(found, variables)
    _, params, batch_stats = from_reference(found, averages=True)
    converted = {"params": params, "batch_stats": batch_stats}
    chex.assert_trees_all_equal(converted, dict(averages), strict=True)


def test_averages_beside_the_objects_of_a_tf2_checkpoint_are_told_apart(
    tmp_path, variables, doubled
):
    """Their paths from the network on are the same."""
    model, averages, other = doubled
    for name, saved in (
        ("apart", {"model": model, "ema_model": averages}),
        ("listed", {"ema_model": averages, "model": model, "all": [averages, model]}),
    ):
        path = tf.train.Checkpoint(**saved).save(str(tmp_path / name / "ckpt"))
        assert_both(tf_files.read(path)[0], variables, other)


def test_averages_in_a_saved_model_are_told_apart(tmp_path, variables, doubled):
    module = Node()
    module.model, module.ema_model, other = doubled
    module.trainable_variables_list = [
        variable for part in (module.ema_model, module.model) for variable in part.variables
    ]
    tf.saved_model.save(module, str(tmp_path))
    assert_both(tf_files.read(str(tmp_path))[0], variables, other)


def test_averages_with_the_names_of_the_weights_are_told_apart(tmp_path, variables):
    import jax

    other = jax.tree.map(lambda array: array + 1, variables)
    flat, averages = Node(), Node()
    for node, filled in ((flat, variables), (averages, other)):
        for k, (name, array) in enumerate(named(filled)["keras"].items()):
            setattr(node, f"v{k}", tf.Variable(array, name=name.removesuffix(":0")))
    path = tf.train.Checkpoint(flat=flat, ema_model=averages).save(str(tmp_path / "ckpt"))
    assert_both(tf_files.read(path)[0], variables, other)
    path = tf.train.Checkpoint(flat=flat, teacher=averages).save(str(tmp_path / "both"))
    with pytest.raises(ArgumentError, match=r"is in it twice, as \S+ and as \S+"):
        tf_files.read(path)


def test_a_second_network_of_objects_is_refused(tmp_path, doubled):
    model, teacher, _ = doubled
    path = tf.train.Checkpoint(model=model, teacher=teacher).save(str(tmp_path / "ckpt"))
    with pytest.raises(ValueError, match="are the same variable"):
        from_reference(tf_files.read(path)[0])


def test_saved_models_whatever_name_their_variables_got(tmp_path, variables):
    """The authors' hold a list of the variables, under which TensorFlow saves them."""
    module = Node()
    module.model = object_model(variables)
    module.trainable_variables_list = list(module.model.trainable_variables)
    tf.saved_model.save(module, str(tmp_path))
    keys = tf.train.load_checkpoint(str(tmp_path / "variables/variables"))
    assert any("trainable_variables_list" in key for key in keys.get_variable_to_shape_map())
    found, step = tf_files.read(str(tmp_path))
    assert step == 0
    assert_same(found, variables)


def test_tf2_checkpoints_by_keras_names(tmp_path, variables):
    """Saved by a model of other attributes: the variables' own names tell."""
    flat = Node()
    for k, (name, array) in enumerate(named(variables)["keras"].items()):
        setattr(flat, f"v{k}", tf.Variable(array, name=name.removesuffix(":0")))
    path = tf.train.Checkpoint(flat=flat).save(str(tmp_path / "ckpt"))
    assert_same(tf_files.read(path)[0], variables)


def test_a_folder_of_several_asks_which(tmp_path, variables):
    for step in (1, 2):
        write_tf1(tmp_path / f"model.ckpt-{step}", variables)
    (tmp_path / "checkpoint").unlink()
    with pytest.raises(ArgumentError, match=r"name one of its checkpoints: .*ckpt-1\.index"):
        tf_files.read(str(tmp_path))


def test_damaged_and_missing_files_are_one_line(tmp_path, variables):
    write_tf1(tmp_path / "model.ckpt-1", variables)
    data = tmp_path / "model.ckpt-1.data-00000-of-00001"
    whole = data.read_bytes()
    index = tmp_path / "model.ckpt-1.index"
    whole_index = index.read_bytes()
    for damage in (
        lambda: data.write_bytes(whole[:1000]),
        lambda: data.unlink(),
        lambda: index.write_bytes(whole_index[:40]),
        lambda: index.write_bytes(b""),
        lambda: index.write_bytes(b"PK" + bytes(500)),
    ):
        data.write_bytes(whole)
        index.write_bytes(whole_index)
        damage()
        with pytest.raises(ArgumentError, match=r"^path=\S+: cannot be read as a checkpoint: .+"):
            tf_files.read(str(tmp_path / "model.ckpt-1"))
    with pytest.raises(ArgumentError, match="no checkpoint there"):
        tf_files.read(str(tmp_path / "nowhere"))


def test_a_folder_that_was_copied_is_read_and_not_what_it_was_copied_from(tmp_path, variables):
    write_tf1(tmp_path / "first/model.ckpt-1", variables)
    write_tf1(tmp_path / "first/model.ckpt-2", variables)
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    shutil.rmtree(tmp_path / "first")
    assert_same(tf_files.read(str(tmp_path / "copy"))[0], variables)
    (tmp_path / "copy/model.ckpt-2.data-00000-of-00001").write_bytes(b"")
    with pytest.raises(ArgumentError, match="cannot be read as a checkpoint"):
        tf_files.read(str(tmp_path / "copy"))


@pytest.mark.parametrize("place", [0.1, 0.3, 0.5, 0.7, 0.9])
def test_a_flipped_bit_is_noticed(tmp_path, variables, place):
    """In the network's variables or in those that are ignored."""
    write_tf1(tmp_path / "model.ckpt-1", variables)
    data = tmp_path / "model.ckpt-1.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[int(len(content) * place)] ^= 1
    data.write_bytes(content)
    with pytest.raises(ArgumentError, match="cannot be read as a checkpoint"):
        tf_files.read(str(tmp_path / "model.ckpt-1"))
