"""What PyTorch exports computes what we compute, under the names that its users expect."""

import json
import shutil
import sys
import types

import pytest

from simclr_jax.weights import exports, torch_exports
from support.networks import NETWORKS, exported, images_of

torch = pytest.importorskip("torch", reason="needs simclr_jax[torch]")
from safetensors.torch import save_file  # noqa: E402

from simclr_jax.weights import simclr_torch  # noqa: E402


@pytest.fixture(autouse=True)
def blocks(monkeypatch):
    """The tests' small networks, for PyTorch too."""
    monkeypatch.setitem(simclr_torch.BLOCKS, 10, (False, (1, 1, 1, 1)))
    monkeypatch.setitem(simclr_torch.BLOCKS, 14, (True, (1, 1, 1, 1)))


@pytest.mark.parametrize(
    ("name", "size"),
    [
        *((name, 64 if "channel" not in name and "on-" not in name else 16) for name in NETWORKS),
        pytest.param("sk", 71, marks=pytest.mark.slow),
        pytest.param("bottleneck", 71, marks=pytest.mark.slow),
    ],
)
def test_torch_computes_the_same(name, size, tmp_path):
    network = exported(NETWORKS[name], size)
    images = images_of(network)
    found = torch_exports.torchvision(network, tmp_path, images, pth=True)
    ours, _ = exports.reference(network.model, network.variables, images)
    expected = {"h"} | ({"logits"} if "classes" in NETWORKS[name] else set())
    expected |= {"z"} if NETWORKS[name].get("head") != "none" and name != "bottleneck" else set()
    assert set(found) == expected
    assert exports.difference(ours, found) < 2e-6
    assert (tmp_path / "simclr_torch.py").exists()


def test_plain_bottlenecks_have_torchvisions_names(tmp_path):
    """Those of resnet.py in torchvision: conv1, bn1, layer1.0.downsample.0, …, fc; no head."""
    network = exported(NETWORKS["bottleneck"], 32)
    torch_exports.torchvision(network, tmp_path, images_of(network), pth=True)
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


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A folder for the Hub, the images that it was exported with, and their outputs.

    Its network is one that torchvision has.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(simclr_torch.BLOCKS, 14, (True, (1, 1, 1, 1)))
        network = exported(NETWORKS["bottleneck"], 16)
        images, folder = images_of(network), tmp_path_factory.mktemp("hub")
        return network, folder, images, torch_exports.huggingface(network, folder, images)


def test_a_folder_for_the_hub_has_the_head_and_describes_itself(hub):
    network, folder, images, found = hub
    other = folder / "torchvision"
    other.mkdir()
    plain = torch_exports.torchvision(network, other, images, pth=False)  # Another test has it.
    assert (set(found), set(plain)) == ({"h", "z", "logits"}, {"h", "logits"})
    assert exports.difference(found, plain) == 0
    config = json.loads((folder / "config.json").read_text())
    assert (config["library_name"], config["channels"]) == ("simclr_jax", 3)
    assert (config["depth"], config["image_size"], config["feature_dim"]) == (14, 16, 2048)


def test_weights_that_were_saved_anew_are_described_by_the_config_beside_them(hub, tmp_path):
    _, folder, images, found = hub
    save_file(simclr_torch.load(str(folder)).state_dict(), tmp_path / "model.safetensors")
    shutil.copy(folder / "config.json", tmp_path)
    for path in (tmp_path, tmp_path / "model.safetensors"):
        again = torch_exports._of_torch(simclr_torch.load(str(path)), images)
        assert exports.difference(found, again) == 0


def test_torchvision_takes_a_folder_for_the_hub_without_its_head(hub, monkeypatch):
    """torchvision is not needed to test what it is handed: a stand-in has our encoder."""
    _, folder, images, found = hub

    class ResNet(simclr_torch.SimCLR):
        def __init__(self, block, layers, num_classes):
            super().__init__(depth=14, classes=num_classes)

    stand_in = types.SimpleNamespace(ResNet=ResNet, Bottleneck=None)
    for name in ("torchvision", "torchvision.models"):
        monkeypatch.setitem(sys.modules, name, types.SimpleNamespace())
    monkeypatch.setitem(sys.modules, "torchvision.models.resnet", stand_in)
    network = simclr_torch.load_torchvision(str(folder))
    with torch.no_grad():
        h = network(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    assert exports.difference(found, {"h": h.numpy()}) < 1e-6
