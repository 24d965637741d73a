"""The list of unreadable images in a run's folder: nothing is lost, and nothing is guessed."""

import json

import pytest
from etils import epath

from simclr_jax.run import unreadable
from support.sources import encoded, readable, write

PRINTS = {use: {"images": 6, "names": "a digest"} for use in ("train", "eval")}


@pytest.fixture
def opened(tmp_path):
    """A function that opens six images, of which 1 and 4 are broken, as a new process does."""
    for number in range(6):
        broken = number in (1, 4)
        content = b"no image" if broken else encoded("white", "PNG", size=(8, 8))
        write(tmp_path / f"images/{number}.png", content)
    return lambda: {use: readable(tmp_path / "images") for use in ("train", "eval")}


@pytest.fixture
def root(tmp_path):
    folder = epath.Path(tmp_path / "run")
    folder.mkdir()
    return folder


def found(root):
    return {use: of["indices"] for use, of in unreadable.read(root).items()}


def test_each_process_adds_what_it_has_met(opened, root, capsys):
    images = opened()
    listed = unreadable.Listed(root, images, PRINTS, 0)
    listed.save()
    assert found(root) == {"train": [], "eval": []}
    images["train"].load([0, 1, 2])
    listed.save()
    assert found(root) == {"train": [1], "eval": []}

    images = opened()
    listed = unreadable.Listed(root, images, PRINTS, 3)
    images["train"].load([3, 4])
    images["eval"].load([1])
    listed.save()
    assert found(root) == {"train": [1, 3], "eval": [1]}  # One image before 4.png is held out.
    first = json.loads((root / unreadable.FILE).read_text())["train"]["first"]
    assert first == ["1.png", "4.png"]
    unreadable.say(images)
    assert capsys.readouterr().out.splitlines() == [
        "1 unreadable images were replaced",
        "1 unreadable images were left out of evaluations",
    ]
    (root / unreadable.FILE).unlink()
    listed.save()  # Nothing has been added.
    assert found(root) == {}


def test_a_list_of_other_images_is_not_continued(opened, root):
    images = opened()
    images["train"].load([1])
    unreadable.Listed(root, images, PRINTS, 0).save()
    others = {**PRINTS, "train": {"images": 6, "names": "another digest"}}
    unreadable.Listed(root, opened(), others, 0).save()
    assert found(root) == {"train": [], "eval": []}


def test_where_the_list_is_gone_no_other_one_is_begun_in_the_middle(opened, root):
    unreadable.Listed(root, opened(), PRINTS, 5).save()
    assert not (root / unreadable.FILE).exists()
    (root / unreadable.FILE).write_text("{")
    assert unreadable.read(root) == {}


def test_a_list_that_cannot_be_written_does_not_end_the_run(opened, root, capsys):
    (root / unreadable.FILE).mkdir()
    unreadable.Listed(root, opened(), PRINTS, 0).save()
    assert "unreadable.json: not written (" in capsys.readouterr().out
