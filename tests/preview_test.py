"""simclr-preview: the page by its parts, what is printed, odd folders, bad flags."""

import os
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from simclr_jax import preview
from support.runs import status_of

SMALL = ["--config.data.image_size=16", "--config.train.batch_size=4"]
ODD = 'Vögel & "<b>x</b>"'  # The name of a class.
CHROMIUM = shutil.which("chromium")


def photo(seed, size=(24, 30)):
    """Something with shapes, of which no two look the same."""
    coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """12 images of two classes to train on and 4 to evaluate on, and what else people have."""
    root = tmp_path_factory.mktemp("images")
    for split, count in (("train", 12), ("test", 4)):
        for number in range(count):
            place = root / split / ("cat" if number % 3 else ODD) / f"{number}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            photo(1000 * (split == "test") + number).save(place)
    cats = root / "train/cat"
    (cats / "copy.png").write_bytes((cats / "1.png").read_bytes())
    (root / "test/cat/leak.png").write_bytes((cats / "2.png").read_bytes())
    photo(4, (48, 60)).save(root / "test/cat/near.jpg", quality=95)
    deep = np.random.default_rng(5).integers(0, 2**16, (20, 20)).astype(np.uint16)
    Image.fromarray(deep).save(cats / "deep.png")
    photo(6).convert("L").save(cats / "grey.png")
    Image.new("RGB", (9, 9), "red").save(cats / "flat.png")
    (cats / 'bro"ken<i>.jpg').write_bytes(b"\xff\xd8 nothing")
    (cats / "notes.txt").write_text("")
    return root


class Page(HTMLParser):
    """The parts of a page: its headings, images, text, and what it names outside of itself."""

    VOID = ("meta", "img", "rect", "br")

    def __init__(self, text):
        super().__init__()
        self.headings, self.images, self.outside, self.open, self.text = [], [], [], [], ""
        self.ids, self.links, self.tags = [], [], []
        self.feed(text)
        assert not self.open, "an element is not closed"

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.ids += [attributes["id"]] if "id" in attributes else []
        if tag == "img":
            self.images.append(attributes)
        for name in ("src", "href"):
            address = attributes.get(name, "#")
            (self.links if address.startswith("#") else self.outside).append(address)
        if tag in ("h1", "h2", "h3"):
            self.headings.append(int(tag[1]))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text += data

    @property
    def words(self):
        return " ".join(self.text.split())


def previewed(path, capsys, *flags):
    """The page and the lines of a preview that must be made; with --quiet the lines on stderr."""
    assert status_of(preview.main, *flags, f"--html={path}") == 0
    out, err = capsys.readouterr()
    return Page(path.read_text()), (err if "--quiet" in flags else out).splitlines()


@pytest.fixture(scope="module")
def made(folder, tmp_path_factory):
    """The path of a page of the folder."""
    path = tmp_path_factory.mktemp("made") / "page.html"
    flags = ["--config=folder", f"--config.data.dir={folder}", *SMALL, "--images=3", "--views=5"]
    assert status_of(preview.main, *flags, f"--html={path}") == 0
    return path


def test_a_page_has_its_parts_and_names_nothing_outside(made):
    page = Page(made.read_text())
    assert page.headings[0] == 1
    assert page.headings.count(1) == 1
    steps = np.diff(page.headings)
    assert steps.max() == 1  # No level is left out.
    assert {"warnings", "views", "augmentation", "data", "duplicates", "broken"} <= set(page.ids)
    assert {link[1:] for link in page.links if len(link) > 1} <= set(page.ids)
    assert all(address.startswith("data:image/") for address in page.outside)
    assert all(image["alt"] for image in page.images)
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert page.tags.count("article") == 3
    assert page.tags.count("rect") == 3 * 5 * 2  # A crop has a line and a halo.
    assert "epoch 2, view 1" in page.words
    assert "pixels at (" in page.words


def test_names_are_text_wherever_they_come_from(made):
    text, page = made.read_text(), Page(made.read_text())
    assert "<b>x" not in text
    assert "<i>.jpg" not in text
    assert ODD in page.words
    assert 'bro"ken<i>.jpg' in page.words


def test_what_is_wrong_with_the_images_is_said(folder, tmp_path, capsys):
    flags = ["--config=folder", f"--config.data.dir={folder}", *SMALL, "--images=1", "--views=2"]
    page, lines = previewed(tmp_path / "page.html", capsys, *flags)
    wanted = [
        "1 of 22 images is smaller than 16 pixels, the side of the views: they are enlarged",
        "1 image to evaluate on is among those to train on as well",
        "1 image to evaluate on looks like one to train on",
        "2 of 22 images are copies of others, byte for byte",
        "1 of 22 images is of a single colour",
    ]
    for line in wanted:
        assert f"warning: {line}" in lines
        assert line in page.words
    assert any("1 of 23 images is broken: " in line and "ken<i>.jpg" in line for line in lines)
    assert "left out 1 .txt" in page.words
    assert "16 1 (5%)" in page.words  # Bits a value.
    facts = {line[:16].strip(): line[16:] for line in lines if not line.startswith("warning")}
    assert facts["images"] == "17 to train on (train), 6 to evaluate on (test)"
    assert facts["classes"].startswith("2, from 13 images to train on ('cat') to 4")
    assert facts["read"] == "all 23 images"
    assert lines[-3].startswith(f"{tmp_path}/page.html: 1 image with 2 views each")
    assert lines[-2].startswith(f"{tmp_path}/page.png: ")
    following = f"next: simclr-train --config=folder --config.data.dir={folder} {' '.join(SMALL)}"
    assert lines[-1] == f"{following} --workdir=runs/folder"


def test_the_contact_sheet_has_a_row_for_each_image(made):
    with Image.open(made.with_suffix(".png")) as sheet:
        width, height = sheet.size
    assert (width, height) == (6 * (128 + 8) + 8, 3 * (128 + 8) + 28)


@pytest.mark.parametrize("labels", [True, False], ids=["one class", "no labels"])
def test_images_without_classes_or_of_one_are_previewed(labels, tmp_path, capsys):
    for number in range(6):
        place = tmp_path / "images" / ("train/only" if labels else ".") / f"{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        photo(number).save(place)
    flags = ["--config=folder", f"--config.data.dir={tmp_path}/images", *SMALL]
    page, _ = previewed(tmp_path / "p.html", capsys, *flags, "--views=1")
    assert "none: the images have no labels" in page.words
    assert page.tags.count("article") == 5  # One in ten is held out, and one at least.


def test_what_the_training_refuses_is_shown_all_the_same(tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    photo(0).save(images / "a.png")
    flags = ["--config=folder", f"--config.data.dir={images}", "--config.data.image_size=16"]
    page, lines = previewed(tmp_path / "p.html", capsys, *flags, "--views=1")
    assert page.tags.count("article") == 1
    assert any(line.startswith("warning: simclr-train refuses this: config.") for line in lines)
    assert lines[-1].startswith("next once that is mended: simclr-train --config=folder ")
    (images / "a.png").write_bytes(b"nothing")
    page, lines = previewed(tmp_path / "p.html", capsys, *flags, "--views=1", "--quiet")
    assert page.tags.count("article") == 0
    assert "No image could be read." in page.words
    assert any("warning: 1 of 1 images is broken" in line for line in lines)
    assert all(line.startswith("warning: ") for line in lines)


def test_no_image_is_read_for_the_summary_with_scan_0(tmp_path, capsys, monkeypatch):
    flags = ["--config=digits", "--scan=0", "--images=2", "--views=2"]
    page, lines = previewed(tmp_path / "p.html", capsys, *flags)
    assert "read            none of the images was looked at" in lines
    assert "classes         10, from 154 images to train on ('1') to 132 ('9')" in lines
    assert "No image was looked at." in page.words
    _, lines = previewed(tmp_path / "p.html", capsys, *flags[:1], "--scan=90", *flags[2:])
    assert "read            90 of 1,797 images, evenly spaced; the rest is not known" in lines


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--html=page.png"], "--html=page.png: must end in .html"),
        (["--html=nowhere/page.html"], "--html=nowhere/page.html: nowhere is no folder"),
        (["--html=taken.html"], "--html=taken.html: taken.html is a folder"),
        (["--images=0"], "flag --images=0"),
        (["--views=x"], "flag --views=x"),
        (["--config.data.image_size=2"], "config.data.image_size=2: "),
        (["--config.data.dirr=x"], "unknown key config.data.dirr"),
        (["--config=folder", "--config.data.dir=nowhere"], "config.data.dir='nowhere': "),
    ],
)
def test_a_bad_flag_is_refused_in_a_line_before_anything_is_made(
    flags, said, tmp_path, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.html").mkdir()
    assert status_of(preview.main, "--config=digits", *flags) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert said in line
    assert os.listdir() == ["taken.html"]


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("width", [500, 820, 1400])  # Its windows are no narrower than 500.
def test_a_browser_shows_every_picture_and_nothing_is_too_wide(width, made, tmp_path):
    measure = (
        "<script>document.title = [document.documentElement.scrollWidth <= innerWidth, "
        "[...document.images].every(image => image.complete && image.naturalWidth > 0)]</script>"
    )
    copy = tmp_path / "copy.html"
    copy.write_text(made.read_text().replace("</body>", f"{measure}</body>"))
    shown = subprocess.run(
        [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900",
         f"--user-data-dir={tmp_path}/profile", "--dump-dom", f"file://{copy}"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "<title>true,true</title>" in shown.stdout


def test_where_no_image_can_be_read_nothing_is_said_of_crops(tmp_path, capsys):
    images = tmp_path / "images"
    images.mkdir()
    for number in range(12):
        np.save(images / f"{number}.npy", np.full((20, 20), 5.0, np.float32))
    flags = ["--config=folder", f"--config.data.dir={images}", "--config.data.channels=1", *SMALL]
    page, lines = previewed(tmp_path / "p.html", capsys, *flags)
    assert "No image could be read." in page.words
    assert "none is the first operation" not in page.words
    assert lines[-1].startswith("next once that is mended: simclr-train --config=folder ")
