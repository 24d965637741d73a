"""What is exported computes what we compute, in the framework that it is for."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simclr_jax.models.simclr import SimCLR
from simclr_jax.weights import exports

NETWORKS = {
    "basic-small": {"depth": 10, "width": 0.125, "stem": "small", "classes": 3},
    "bottleneck": {"depth": 14, "width": 1.0, "stem": "imagenet", "classes": 5},
    "sk": {"depth": 14, "width": 0.25, "sk_ratio": 0.0625, "head_layers": 3},
    "sk-small": {"depth": 14, "width": 0.125, "sk_ratio": 0.5, "stem": "small"},
    "basic-sk": {"depth": 10, "width": 0.125, "sk_ratio": 0.0625, "head": "linear"},
    "se": {"depth": 14, "width": 0.125, "se_ratio": 0.25, "head": "none"},
    "on-head1": {
        "depth": 10,
        "width": 0.125,
        "stem": "small",
        "classes": 3,
        "classifier_layer": "head1",
    },
    "on-z": {
        "depth": 10,
        "width": 0.125,
        "stem": "small",
        "classes": 3,
        "classifier_layer": "head2",
    },
    "five-channels": {"depth": 10, "width": 0.125, "stem": "small", "classes": 3, "channels": 5},
    "one-channel-sk": {"depth": 10, "width": 0.125, "sk_ratio": 0.0625, "channels": 1},
}


def exported(network, size):
    """A network whose every parameter and statistic matters."""
    model = SimCLR(**network)
    variables = jax.eval_shape(
        lambda: model.init(
            jax.random.key(0), jnp.zeros((1, size, size, model.channels)), train=False
        )
    )
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        name = path[-1].key
        if name == "kernel":
            scale = np.sqrt(2 / np.prod(leaf.shape[:-1]))
            return (scale * rng.standard_normal(leaf.shape)).astype(np.float32)
        low, high = {"scale": (0.5, 1.5), "var": (0.5, 2)}.get(name, (-0.2, 0.2))
        return rng.uniform(low, high, leaf.shape).astype(np.float32)

    return exports.Exported(model, jax.tree_util.tree_map_with_path(fill, dict(variables)), size)


def images_of(network, count=2):
    size = network.image_size
    shape = count, size, size, network.model.channels
    return np.random.default_rng(1).random(shape, np.float32)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        *((name, 64 if "channel" not in name and "on-" not in name else 16) for name in NETWORKS),
        pytest.param("sk", 71, marks=pytest.mark.slow),
        pytest.param("bottleneck", 71, marks=pytest.mark.slow),
    ],
)
def test_torch_computes_the_same(name, size, tmp_path, monkeypatch):
    pytest.importorskip("torch", reason="needs simclr_jax[torch]")
    from simclr_jax.weights import simclr_torch

    monkeypatch.setitem(simclr_torch.BLOCKS, 10, (False, (1, 1, 1, 1)))
    monkeypatch.setitem(simclr_torch.BLOCKS, 14, (True, (1, 1, 1, 1)))
    network = exported(NETWORKS[name], size)
    images = images_of(network)
    found = exports.torchvision(network, tmp_path, images, pth=True)
    ours, _ = exports.reference(network.model, network.variables, images)
    expected = {"h"} | ({"logits"} if "classes" in NETWORKS[name] else set())
    expected |= {"z"} if NETWORKS[name].get("head") != "none" and name != "bottleneck" else set()
    assert set(found) == expected
    assert exports.difference(ours, found) < 2e-6
    assert (tmp_path / "simclr_torch.py").exists()


def test_plain_bottlenecks_have_torchvisions_names(tmp_path, monkeypatch):
    """Those of resnet.py in torchvision: conv1, bn1, layer1.0.downsample.0, …, fc; no head."""
    torch = pytest.importorskip("torch", reason="needs simclr_jax[torch]")
    from simclr_jax.weights import simclr_torch

    monkeypatch.setitem(simclr_torch.BLOCKS, 14, (True, (1, 1, 1, 1)))
    network = exported(NETWORKS["bottleneck"], 32)
    exports.torchvision(network, tmp_path, images_of(network), pth=True)
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    expected = {"conv1.weight", "fc.weight", "fc.bias", *(f"bn1.{leaf}" for leaf in norm)}
    for group in range(1, 5):
        block = f"layer{group}.0"
        expected |= {f"{block}.conv{k}.weight" for k in (1, 2, 3)}
        expected |= {f"{block}.bn{k}.{leaf}" for k in (1, 2, 3) for leaf in norm}
        expected |= {f"{block}.downsample.0.weight"}
        expected |= {f"{block}.downsample.1.{leaf}" for leaf in norm}
    tensors = torch.load(tmp_path / "model.pth", weights_only=True)
    assert set(tensors) == expected
    assert tuple(tensors["layer2.0.conv3.weight"].shape) == (512, 128, 1, 1)
    assert tensors["bn1.num_batches_tracked"].dtype == torch.int64


@pytest.mark.parametrize("name", ["basic-small", "five-channels"])
@pytest.mark.parametrize("form", ["stablehlo", pytest.param("savedmodel", marks=pytest.mark.slow)])
def test_graphs_compute_the_same_for_any_batch(form, name, tmp_path):
    network = exported(NETWORKS[name], 16)
    for count in (2, 5):
        images = images_of(network, count)
        folder = tmp_path / str(count)
        folder.mkdir()
        found = exports.FORMATS[form](network, folder, images)
        ours, _ = exports.reference(network.model, network.variables, images)
        assert set(found) == {"h", "z", "logits"}
        assert exports.difference(ours, found) < 2e-6


def test_one_stablehlo_serves_every_batch_size_and_platform(tmp_path):
    network = exported(NETWORKS["basic-small"], 16)
    exports.stablehlo(network, tmp_path, images_of(network))
    content = bytearray((tmp_path / "model.stablehlo").read_bytes())
    loaded = jax.export.deserialize(content)
    assert loaded.platforms == ("cpu", "tpu", "cuda")
    for count in (1, 7):
        chex.assert_shape(loaded.call(images_of(network, count))["h"], (count, 64))


def test_a_difference_is_relative_to_the_largest_value():
    ours = {"h": np.array([10.0, 1.0]), "z": np.array([1.0])}
    assert exports.difference(ours, {"h": np.array([10.0, 1.5])}) == pytest.approx(0.05)
    assert exports.difference(ours, {"h": ours["h"], "z": np.array([2.0])}) == pytest.approx(1.0)
