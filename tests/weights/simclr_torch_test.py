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
from support.sources import npy

torch = pytest.importorskip("torch", reason="needs simclr_jax[torch]")
from simclr_jax.weights import simclr_torch  # noqa: E402


def evaluation_view(image, size):
    """The view of an image that an evaluation has, (size, size, 3) float32."""
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    decoded = images.pixels(buffer.getvalue())
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


ARRAYS = [bool, np.uint8, np.int8, np.uint16, np.int16, np.int32, np.uint32, np.float16, np.float32]


def written(values, kind):
    """An array, or an image of Pillow, as the content of a file."""
    if kind == "NPY":
        return npy(values)
    file = io.BytesIO()
    values.save(file, kind)
    return file.getvalue()


def of_both(values, kind, channels, value_range=None):
    """The view that an evaluation has of a file and that of the transform; "refused" for none."""
    try:
        decoded = images.pixels(written(values, kind), value_range, channels)
        ours = host.eval_view(tf.constant(decoded), size=48).numpy()
    except ValueError:
        ours = "refused"
    try:
        view = simclr_torch.Transform(48, channels, value_range)(values)
        theirs = view.permute(1, 2, 0).numpy()
    except ValueError:
        theirs = "refused"
    return ours, theirs


@pytest.mark.parametrize("value_range", [None, (0, 100), (50, -20)])
@pytest.mark.parametrize("there", [1, 2, 3, 4])
def test_arrays_are_what_an_evaluation_takes_them_for(there, value_range, rng):
    """Of every type, with values that it has by itself and with larger ones."""
    seen = 0
    for dtype in ARRAYS:
        for top in (0, 120, 5000):
            values = (rng.random((40, 50, there)) * (top + 1)).astype(dtype)
            for channels in (1, 2, 3, 4):
                ours, theirs = of_both(values, "NPY", channels, value_range)
                assert np.shape(ours) == np.shape(theirs), (dtype, top, channels)
                if not isinstance(ours, str):
                    np.testing.assert_allclose(theirs, ours, atol=1e-6)
                    seen += channels == there
    assert seen >= 18


@pytest.mark.parametrize("value_range", [None, (0, 4095)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_images_of_every_mode_are_what_an_evaluation_takes_them_for(kind, value_range, rng):
    """An image of alpha keeps it where the network has a channel for it."""
    if kind == "TIFF":
        pytest.importorskip("tifffile", reason="needs simclr_jax[tiff]")
    colours = Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8))
    alpha = Image.fromarray(rng.integers(0, 256, (40, 50), np.uint8))
    found = [colours.convert(mode) for mode in ("1", "L", "P", "RGB", "RGBA", "LA")]
    found[-1].putalpha(alpha)
    found[-2].putalpha(alpha)
    found += [alpha.convert("RGB"), Image.fromarray(rng.integers(0, 2**16, (40, 50), np.uint16))]
    if kind == "TIFF":
        found += [Image.fromarray(rng.random((40, 50), np.float32) * top) for top in (1, 5000)]
    seen = []
    for image in found:
        for channels in (1, 2, 3, 4):
            ours, theirs = of_both(image, kind, channels, value_range)
            assert np.shape(ours) == np.shape(theirs), (image.mode, channels)
            if not isinstance(ours, str):
                np.testing.assert_allclose(theirs, ours, atol=1e-6, err_msg=image.mode)
                seen.append((image.mode, channels))
    assert {("LA", 2), ("RGBA", 4), ("RGBA", 3), ("L", 1), ("RGB", 1), ("I;16", 3)} <= {*seen}
    assert kind == "PNG" or ("F", 1) in seen


def test_what_is_no_number_is_black_and_other_channels_are_named():
    values = np.array([[np.nan, 1.0]], np.float32)
    assert simclr_torch.Transform(8, 1, (0, 1))(values)[0, 0].tolist()[0] == 0
    with pytest.raises(ValueError, match="3 different channels, where the network takes 5"):
        simclr_torch.Transform(8, 5)(Image.new("RGB", (9, 9)))
    with pytest.raises(ValueError, match="values from -1 to 7, not from 0 to 255"):
        simclr_torch.Transform(8, 1)(np.array([[-1, 7]], np.int8))


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
