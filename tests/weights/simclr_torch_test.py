"""What a PyTorch user gets: the network from its folder, and the view of an evaluation."""

import io
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from simclr_jax.augment import host
from simclr_jax.data import images
from simclr_jax.models.simclr import SimCLR
from simclr_jax.weights import exports, torch_exports

torch = pytest.importorskip("torch", reason="needs simclr_jax[torch]")
from simclr_jax.weights import simclr_torch  # noqa: E402


def evaluation_view(image, size):
    """The view of an image that an evaluation has, (size, size, 3) float32."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    decoded = images.decoded(buffer.getvalue())[1]
    return host.eval_view(decoded, size=size).numpy()


@pytest.mark.parametrize(
    ("shape", "size"),
    [((300, 200), 224), ((40, 37), 64), ((224, 224), 224), ((9, 7), 8), ((8, 8), 8), ((33, 50), 32),
     ((1, 50), 64), ((1, 1), 8), ((600, 801), 96)],
)  # fmt: skip
def test_the_transform_is_the_view_of_an_evaluation(shape, size, rng):
    """Smaller, larger, of no and of one pixel more than the view; to a rounding of float32."""
    image = Image.fromarray(rng.integers(0, 256, (*shape, 3), np.uint8))
    view = simclr_torch.Transform(size)(image)
    assert (view.shape, view.dtype) == ((3, size, size), torch.float32)
    np.testing.assert_allclose(view.permute(1, 2, 0), evaluation_view(image, size), atol=1e-6)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "LA"])
def test_images_of_other_modes_are_what_an_evaluation_takes_them_for(mode, rng):
    image = Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).convert(mode)
    view = simclr_torch.Transform(48)(image)
    np.testing.assert_allclose(view.permute(1, 2, 0), evaluation_view(image, 48), atol=1e-6)


def test_sixteen_bits_are_not_black(rng):
    levels = rng.integers(0, 2**16, (8, 8), np.uint16)
    view = simclr_torch.Transform(8)(Image.fromarray(levels))
    np.testing.assert_allclose(view[0], levels / 65535, atol=1 / 255)


@pytest.mark.parametrize("value_range", [None, (0, 4095)])
def test_images_of_one_channel_and_of_many_are_what_an_evaluation_takes_them_for(value_range, rng):
    values = rng.integers(0, 5000, (40, 50, 5), np.uint16)
    for channels, image in ((1, Image.fromarray(values[..., 0])), (1, values[..., 0]), (5, values)):
        file = io.BytesIO()
        np.save(file, np.asarray(image))
        decoded = images.decoded(file.getvalue(), value_range, channels)[1]
        view = simclr_torch.Transform(48, channels, value_range)(image)
        expected = host.eval_view(tf.constant(decoded), size=48).numpy()
        np.testing.assert_allclose(view.permute(1, 2, 0), expected, atol=1e-6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """An export of a small network of 16-pixel images."""
    patch = pytest.MonkeyPatch()
    patch.setitem(simclr_torch.BLOCKS, 10, (False, (1, 1, 1, 1)))
    model = SimCLR(depth=10, width=0.0625, stem="small", classes=3)
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)), train=False)
    )
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.random(leaf.shape, np.float32), shapes)
    place = tmp_path_factory.mktemp("export")
    shown = np.zeros((1, 16, 16, 3), np.float32)
    torch_exports.torchvision(exports.Exported(model, variables, 16), place, shown, pth=False)
    yield place
    patch.undo()


def test_a_network_is_loaded_from_its_folder_as_from_its_file_and_knows_its_images(folder, rng):
    networks = [simclr_torch.load(str(path)) for path in (folder, folder / "model.safetensors")]
    image = Image.fromarray(rng.integers(0, 256, (30, 20, 3), np.uint8))
    a, b = (network(network.transform(image)[None]) for network in networks)
    assert a.shape == (1, 32)
    torch.testing.assert_close(a, b, rtol=0, atol=0)
    loaded = pickle.loads(pickle.dumps(networks[0].transform))  # As a data loader's workers do.
    assert loaded(image).shape == (3, 16, 16)


def test_torchvision_lacks_a_classifier_on_the_head():
    plain = {"depth": 50, "width": 1.0, "stem": "imagenet", "sk_ratio": 0.0, "se_ratio": 0.0}
    assert simclr_torch.is_torchvision(plain | {"classes": 3, "classifier_layer": 0})
    assert not simclr_torch.is_torchvision(plain | {"classes": 3, "classifier_layer": 1})
    assert not simclr_torch.is_torchvision(plain | {"channels": 5})
