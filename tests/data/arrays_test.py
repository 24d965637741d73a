"""Images as arrays: .npy files, TIFFs of any channels and bits, and what becomes of them."""

import io
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from simclr_jax.data import arrays, headers, images
from simclr_jax.data.digits import Digits
from simclr_jax.data.readable import Readable
from support.sources import encoded, npy, readable, tiff, write


def noise(*shape, dtype=np.uint16, top=4096):
    return np.random.default_rng(0).integers(0, top, shape).astype(dtype)


def levels(data, channels, value_range=None):
    """The pixels of an image, whose encoded form, if there is any, has the same."""
    pixels = images.pixels(data, value_range, channels)
    assert images.size(data, channels) == pixels.shape[1::-1]
    if channels in images.ENCODED:
        image = images.transcode(data, value_range, channels)
        np.testing.assert_array_equal(images.pixels(image, None, channels), pixels)
    return pixels


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize("write_file", [npy, tiff])
def test_values_of_12_bits_are_scaled_by_their_range(channels, write_file):
    values = noise(6, 9, channels)
    if write_file is tiff:
        photometric = "rgb" if channels == 3 else "minisblack"
        data = tiff(
            values, photometric=photometric, planarconfig="contig" if channels > 1 else None
        )
    else:
        data = npy(values)
    expected = np.round(values / 4095 * 255)
    np.testing.assert_allclose(levels(data, channels, (0, 4095)), expected, atol=0.51)
    if channels != 3 or write_file is npy:  # Of a colour TIFF Pillow reads the upper 8 bits, too.
        np.testing.assert_array_equal(levels(data, channels), values >> 8)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int8, np.int32, np.float32])
def test_without_a_range_black_and_white_follow_from_the_type(dtype):
    white = {bool: 1, np.uint8: 255, np.int8: 127, np.int32: 65535, np.float32: 1}[dtype]
    found = levels(npy(np.array([[0, white]]).astype(dtype)), 1)
    assert found.dtype == np.uint8
    assert found.ravel().tolist() == [0, 127 if dtype == np.int8 else 255]  # White is 255 there.


def test_a_range_is_that_of_npy_files_of_8_bits_too():
    values = np.array([[0, 50, 100, 200]], np.uint8)
    assert levels(npy(values), 1, (0, 100)).ravel().tolist() == [0, 128, 255, 255]


def test_values_outside_the_type_s_range_are_refused():
    with pytest.raises(ValueError, match=r"float64 values from 0 to 7.*value_range"):
        images.pixels(npy(np.array([[0.0, 7.0]])), None, 1)
    with pytest.raises(ValueError, match=r"int8 values from -1 to 7, not from 0 to 255.*value_ran"):
        images.pixels(npy(np.array([[-1, 7]], np.int8)), None, 1)


def test_signed_values_of_8_bits_in_a_tiff_are_not_taken_for_unsigned_ones():
    data = tiff(np.array([[-128, 0, 127]], np.int8), photometric="minisblack")
    with pytest.raises(ValueError, match="int8 values from -128 to 127"):
        images.pixels(data, None, 1)
    assert levels(data, 1, (-128, 127)).ravel().tolist() == [0, 128, 255]


@pytest.mark.parametrize("order", ["C", "F"])
def test_the_axis_of_the_channels_is_the_one_that_has_as_many(order):
    values = np.asarray(noise(6, 9, 5, dtype=np.uint8, top=256), order=order)
    np.testing.assert_array_equal(levels(npy(values), 5), values)
    first = np.moveaxis(values, -1, 0)
    np.testing.assert_array_equal(levels(npy(first), 5), values)
    np.testing.assert_array_equal(levels(npy(values[..., 0]), 3), values[..., [0, 0, 0]])


def test_planes_and_pages_of_a_tiff_are_channels():
    values = noise(5, 6, 9)
    expected = np.moveaxis(values, 0, -1) >> 8
    for kwargs in ({"planarconfig": "separate"}, {"metadata": {"axes": "CYX"}}, {"imagej": True}):
        data = tiff(values, photometric="minisblack", **kwargs)
        np.testing.assert_array_equal(levels(data, 5), expected)
    with pytest.raises(ValueError, match=r"5 channels, where channels=3 takes 3"):
        levels(tiff(values, photometric="minisblack", planarconfig="separate"), 3)
    with pytest.raises(ValueError, match=r"axes .*CYX.* of .*; an image has Y, X and its"):
        levels(tiff(noise(2, 5, 6, 9), imagej=True, photometric="minisblack"), 5)


def test_another_number_of_channels_is_refused_with_what_there_is():
    for data, channels, words in (
        (npy(noise(6, 9, 5)), 3, "5 channels, where channels=3 takes 3, or 1 of grey images"),
        (npy(noise(6, 9)), 5, "1 channel, where channels=5 takes 5"),
        (encoded("red"), 1, "3 channels that differ, where channels=1 takes 1"),
        (encoded("red", "WEBP"), 4, "3 channels, where channels=4 takes 4"),
        (tiff(noise(6, 9, 5), photometric="minisblack", planarconfig="contig"), 3, "5 channels"),
    ):
        with pytest.raises(ValueError, match=words):
            images.pixels(data, None, channels)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_three_equal_channels_are_one(kind):
    grey = levels(encoded("gray", kind), 1)
    assert grey.shape == (10, 12, 1)
    np.testing.assert_allclose(grey, 128, atol=1)


def test_four_channels_are_those_of_an_image_with_alpha():
    pixels = noise(6, 9, 4, dtype=np.uint8, top=256)
    for kind in ("PNG", "TIFF"):
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind)
        if kind == "TIFF":
            pytest.importorskip("tifffile", reason="needs simclr_jax[tiff]")
        np.testing.assert_array_equal(levels(file.getvalue(), 4), pixels)


def test_what_is_no_array_of_an_image_is_refused(tmp_path):
    harmful = io.BytesIO()
    np.save(harmful, np.array([[print]], object), allow_pickle=True)
    whole = npy(noise(6, 9))
    for data, words in (
        (harmful.getvalue(), "an array of object"),
        (npy(np.zeros((2, 2), complex)), "an array of complex128"),
        (npy(noise(2, 6, 9, 3)), r"shape \(2, 6, 9, 3\); that of an image is \(H, W\)"),
        (whole[:-1], "truncated: 54 values of uint16"),
        (whole[:20], "EOF"),
        (b"\x93NUMPY\x03\0" + whole[8:], r"version \(3, 0\) of .npy"),
    ):
        with pytest.raises(ValueError, match=words):
            images.pixels(data, None, 1)


def test_a_package_that_is_missing_is_named(monkeypatch):
    data = tiff(noise(6, 9, 5), photometric="minisblack", planarconfig="contig")
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "tifffile", None)
        with pytest.raises(ValueError, match=r"TIFF of 5 channels of 16 bits.*simclr_jax\[tiff\]"):
            images.pixels(data, None, 5)
    with monkeypatch.context() as patched:
        patched.setattr("tifffile.TiffPageSeries.asarray", needs_a_codec)
        with pytest.raises(ValueError, match=r"'imagecodecs' package: pip install imagecodecs"):
            images.pixels(data, None, 5)


def needs_a_codec(*_, **__):
    raise ValueError("<COMPRESSION.LZW: 5> requires the 'imagecodecs' package")


def test_headers_tell_the_channels_of_arrays():
    assert headers.of(npy(noise(6, 9))) == headers.Header("NPY", "grey", 16)
    data = tiff(noise(6, 9, 5), photometric="minisblack", planarconfig="contig")
    assert headers.of(data) == headers.Header("TIFF", "5 channels", 16)


@pytest.mark.parametrize("channels", [1, 5])
def test_a_folder_is_read_again_as_it_was_read_first(channels, tmp_path):
    for number in range(4):
        write(tmp_path / f"{number}.npy", npy(noise(6, 9 + number, channels)))
    write(tmp_path / "4.npy", npy(noise(6, 9, 2)))
    source = Readable(
        readable(tmp_path, eval_split="train").source,
        on_bad_image="replace", channels=channels, value_range=(0, 4095),
    )  # fmt: skip
    first, again = (source.load(np.arange(5))[0] for _ in range(2))
    assert list(source.bad.values()) == [f"2 channels, where channels={channels} takes {channels}"]
    for one, other in zip(first, again, strict=True):
        assert one.pixels().shape[-1] == channels
        np.testing.assert_array_equal(one.pixels(), other.pixels())


def test_grey_images_of_a_dataset_have_one_channel_each():
    grey = Readable(Digits("test"), on_bad_image="error", channels=1)
    usual = Readable(Digits("test"), on_bad_image="error")
    index = np.arange(6)
    (one, _), (three, _) = grey.load_pixels(index), usual.load_pixels(index)
    assert one.shape == (6, 8, 8, 1)
    np.testing.assert_array_equal(np.repeat(one, 3, axis=-1), three)


def test_headers_in_numpys_words_need_no_parser_and_others_have_it_one_at_a_time(monkeypatch):
    """Other programs write the same header with other spaces and in another order."""
    parse, parsed = np.lib.format.read_array_header_1_0, []

    def alone(file):
        parsed.append(arrays._ONE_AT_A_TIME.locked())
        return parse(file)

    monkeypatch.setattr("numpy.lib.format.read_array_header_1_0", alone)
    array = np.arange(5 * 4 * 3, dtype=">u2").reshape(5, 4, 3)
    for values in (array, np.asfortranarray(array)):
        usual = npy(values)
        order = str(np.isfortran(values)).encode()
        text = b"{'shape':(5,4,3),'fortran_order':" + order + b",'descr':'>u2'}\n"
        other = usual[:8] + len(text).to_bytes(2, "little") + text + values.tobytes(order="A")
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(arrays.npy, [usual, other] * 500))
        assert all((each == array).all() for each in found)
    assert parsed == [True] * 1000
