"""The encoder: sizes, layout, and operations against other implementations of them."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simclr_jax.models import resnet
from simclr_jax.models.convolution import conv_layer
from simclr_jax.models.norm import batch_norm
from simclr_jax.models.resnet import ResNet


def shapes_of(model, size):
    def init():
        return model.init(jax.random.key(0), jnp.zeros((1, size, size, 3)), train=False)

    return jax.eval_shape(init)


def count(model, size):
    return sum(leaf.size for leaf in jax.tree.leaves(shapes_of(model, size)["params"]))


@pytest.mark.parametrize(
    ("model", "size", "parameters"),
    [
        (ResNet(depth=18, stem="small"), 32, 11_173_056),
        (ResNet(depth=18), 64, 11_180_736),
        (ResNet(depth=50), 64, 23_508_032),
        (ResNet(depth=50, sk_ratio=0.0625), 64, 35_215_584),
    ],
    ids=["18-small", "18", "50", "50-sk"],
)
def test_parameter_counts_are_the_published_ones(model, size, parameters):
    assert count(model, size) == parameters


@pytest.mark.parametrize(
    ("depth", "blocks"), [(18, 8), (34, 16), (50, 16), (101, 33), (152, 50), (200, 66)]
)
def test_depth_counts_layers(depth, blocks):
    params = shapes_of(ResNet(depth=depth), 64)["params"]
    names = [name for name in params if name.startswith("group")]
    assert len(names) == blocks
    convs = {18: 2, 34: 2}.get(depth, 3)
    assert blocks * convs + 2 == depth  # with the stem and the classifier


def test_width_multiplies_filters():
    wide = shapes_of(ResNet(depth=50, width=2), 64)["params"]
    chex.assert_shape(wide["stem_conv"]["kernel"], (7, 7, 3, 128))
    chex.assert_shape(wide["group4_block3"]["conv3"]["kernel"], (1, 1, 1024, 4096))
    narrow = shapes_of(ResNet(depth=18, width=0.25, stem="small"), 32)["params"]
    chex.assert_shape(narrow["stem_conv"]["kernel"], (3, 3, 3, 16))


def test_first_block_of_every_group_projects_its_shortcut():
    params = shapes_of(ResNet(depth=18), 64)["params"]
    for group in range(1, 5):
        assert "shortcut_conv" in params[f"group{group}_block1"]
        assert "shortcut_conv" not in params[f"group{group}_block2"]


def stages(module, method):
    """Captures the outputs of the stem and of every block."""
    return isinstance(module, resnet.Block) or method == "_stem"


def blocks_of(captured):
    """The outputs of the stem and of every block, by name."""
    found = dict(captured["intermediates"])
    (stem,) = found.pop("_stem")
    return {"stem": stem, **{name: found[name]["__call__"][0] for name in found}}


def test_block_outputs_come_by_name_and_h_is_the_mean_of_the_last():
    model = ResNet(depth=10, width=1 / 16, stem="small")
    images = jax.random.uniform(jax.random.key(1), (2, 16, 16, 3))

    @jax.jit
    def init():
        variables = model.init(jax.random.key(0), images, train=False)
        return model.apply(
            variables, images, train=False, mutable=["intermediates"], capture_intermediates=stages
        )

    h, captured = init()
    outputs = blocks_of(captured)
    assert set(outputs) == {"stem", *(f"group{g}_block1" for g in range(1, 5))}
    assert [outputs[f"group{g}_block1"].shape for g in range(1, 5)] == [
        (2, 16, 16, 4), (2, 8, 8, 8), (2, 4, 4, 16), (2, 2, 2, 32)
    ]  # fmt: skip
    np.testing.assert_allclose(h, outputs["group4_block1"].mean(axis=(1, 2)), rtol=1e-6)


def test_residual_branches_start_at_zero():
    model = ResNet(depth=14, width=1 / 16)
    params = jax.jit(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)), train=False)
    )()
    for name, block in params["params"].items():
        if name.startswith("group"):
            assert (block["bn3"]["scale"] == 0).all()
            assert (block["bn1"]["scale"] == 1).all()


def test_selective_kernel_mixes_its_two_streams(rng):
    """Equal attention logits leave the plain mean of the streams."""
    x = jnp.asarray(rng.normal(size=(2, 4, 4, 3)), jnp.float32)
    conv = named(conv_layer)
    norm = named(batch_norm, train=False, running=False)
    layer = resnet.SelectiveKernel(filters=5, stride=1, ratio=0.0625, conv=conv, norm=norm)
    variables = layer.init(jax.random.key(0), x)
    chex.assert_shape(variables["params"]["reduce"]["kernel"], (1, 1, 5, 32))
    variables["params"]["expand"]["kernel"] *= 0.0
    streams = jax.nn.relu(conv(10, 3, name=None).apply({"params": variables["params"]["conv"]}, x))
    streams = streams / np.sqrt(1 + 1e-5)  # batch norm as initialised
    expected = (streams[..., :5] + streams[..., 5:]) / 2
    np.testing.assert_allclose(layer.apply(variables, x), expected, atol=1e-5)


def named(function, **kwargs):
    return lambda *args, **more: function(*args, dtype=jnp.float32, **kwargs, **more)


def test_squeeze_excite_gates_channels(rng):
    x = jnp.asarray(rng.normal(size=(2, 4, 4, 8)), jnp.float32)
    layer = resnet.SqueezeExcite(filters=8, ratio=0.25, dtype=jnp.float32)
    variables = layer.init(jax.random.key(0), x)
    chex.assert_shape(variables["params"]["reduce"]["kernel"], (1, 1, 8, 2))
    assert set(variables["params"]["expand"]) == {"kernel", "bias"}
    y = layer.apply(variables, x)
    gate = y / x
    np.testing.assert_allclose(gate, np.broadcast_to(gate[:, :1, :1], gate.shape), rtol=1e-4)


@pytest.mark.parametrize("kwargs", [{"sk_ratio": 0.0625}, {"se_ratio": 0.25}, {"sk_ratio": 0.0}])
@pytest.mark.parametrize("size", [33, 71])
def test_odd_sizes_have_shapes(kwargs, size):
    model = ResNet(depth=50, **kwargs)
    shape = jax.eval_shape(
        lambda: model.init_with_output(
            jax.random.key(0), jnp.zeros((2, size, size, 3)), train=False
        )[0]
    )
    chex.assert_shape(shape, (2, 2048))


def test_bfloat16_convolutions_keep_float32_parameters_and_features():
    model = ResNet(depth=18, width=1 / 16, stem="small", dtype=jnp.bfloat16)
    images = jnp.zeros((1, 8, 8, 3))
    h, variables = jax.eval_shape(
        lambda: model.init_with_output(
            jax.random.key(0), images, train=True, capture_intermediates=stages
        )
    )
    assert h.dtype == jnp.float32
    assert (
        blocks_of({"intermediates": variables.pop("intermediates")})["stem"].dtype == jnp.bfloat16
    )
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
