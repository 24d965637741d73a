"""What a survey finds in a folder of odd images, and how many it reads."""

import io

import numpy as np
import pytest
from PIL import Image

from simclr_jax.data import depth, survey
from support.sources import encoded, split, tiff, write


@pytest.fixture
def folder(tmp_path):
    """Twelve files: a good one of each kind that matters, and broken ones."""
    rng = np.random.default_rng(0)
    for number in range(8):
        buffer = io.BytesIO()
        pixels = rng.integers(0, 256, (10 + number, 20, 3), np.uint8)
        Image.fromarray(pixels).save(buffer, "PNG")
        write(tmp_path / f"{number}.png", buffer.getvalue())
    write(tmp_path / "flat.jpg", encoded("red"))
    write(tmp_path / "grey.png", encoded("grey", "PNG", "L"))
    write(tmp_path / "x.jpg", b"no image")
    write(tmp_path / "y.png", (tmp_path / "7.png").read_bytes()[:60])
    return split("folder", tmp_path, held_out=0.0001 + 1 / 12)


def test_a_survey_reads_every_image_once_and_tells_what_it_is(folder):
    read = []
    found = survey.scan(folder, 100, on_read=read.append)
    assert found.read == list(range(len(folder)))
    assert read == [len(folder)]
    assert len(found.seen) + len(found.broken) == len(folder)
    assert {folder.name(index) for index in found.broken} <= {"x.jpg", "y.png"}
    assert "not an image" in found.broken.values()
    for one in found.seen:
        name = folder.name(one.number)
        (data,), _ = folder.load([one.number])
        with Image.open(io.BytesIO(data)) as image:
            assert (one.width, one.height) == image.size
        assert one.length == len(data)
        assert one.flat == (name in ("flat.jpg", "grey.png"))
        assert one.grey == (name == "grey.png")
        assert one.header.format == ("JPEG" if name.endswith("jpg") else "PNG")
    assert len({one.digest for one in found.seen}) == len(found.seen)


def test_a_survey_of_few_reads_them_evenly_spaced(folder):
    found = survey.scan(folder, 3)
    assert found.read == [0, len(folder) // 2, len(folder) - 1]
    assert len(found.labels) == 3
    nothing = survey.scan(folder, 0)
    assert (nothing.read, nothing.seen, nothing.broken, len(nothing.labels)) == ([], [], {}, 0)


def test_an_image_is_seen_as_the_value_range_says(tmp_path):
    values = np.tile(np.arange(0, 4096, 128, dtype=np.uint16), (32, 1))
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    for number in range(5):
        write(tmp_path / f"{number}.png", buffer.getvalue())
    source = split("folder", tmp_path)
    dark, light = (survey.scan(source, 9, value_range=r).seen for r in (None, (0, 4095)))
    assert dark[0].thumbnail.max() < 16
    assert light[0].thumbnail.max() > 240
    assert dark[0].header.bits == light[0].header.bits == 16
    assert sum(len(one.lines) for one in dark) == 1
    assert not any(one.lines for one in light)
    assert depth.is_deep_png(buffer.getvalue())


def test_transparency_is_counted_where_it_is_left_out(tmp_path):
    for number in range(6):
        write(tmp_path / f"{number}.png", encoded("teal", "PNG", "RGBA" if number else "RGB"))
    clear = io.BytesIO()
    Image.new("RGBA", (9, 9), (10, 20, 30, 0)).save(clear, "PNG")
    write(tmp_path / "7.png", clear.getvalue())
    source = split("folder", tmp_path, held_out=0.0001 + 1 / 7)
    shares = {source.name(one.number): one.not_opaque for one in survey.scan(source, 9).seen}
    assert {shares.pop("7.png", 1), shares.pop("0.png", None)} == {1, None}
    assert set(shares.values()) == {0}
    assert {one.not_opaque for one in survey.scan(source, 9, channels=4).seen} == {None}


@pytest.mark.parametrize("pages", [False, True])
def test_a_tiff_of_two_channels_is_said_to_have_two(tmp_path, pages):
    pixels = np.arange(2 * 9 * 8, dtype=np.uint8).reshape(9, 8, 2)
    for number in range(5):
        kwargs = {} if pages else {"planarconfig": "contig"}
        found = np.moveaxis(pixels, -1, 0).copy() if pages else pixels
        write(tmp_path / f"{number}.tif", tiff(found, photometric="minisblack", **kwargs))
    source = split("folder", tmp_path)
    assert {one.header.channels for one in survey.scan(source, 9, channels=2).seen} == {
        "2 channels"
    }
    three = survey.scan(source, 9).seen
    assert {one.header.channels for one in three} == {"grey" if pages else "2 channels"}
    assert sum(len(one.lines) for one in three) == 1
