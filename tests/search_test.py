"""simclr-search: what is nearest, near-duplicates, the page by its parts, and what is refused."""

import re
from html.parser import HTMLParser

import pytest

from simclr_jax import search
from support.runs import status_of


class Parts(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def searched(indexed, *argv):
    return status_of(search.main, f"--run={indexed[0]}", *argv)


def test_an_indexed_image_finds_itself_and_its_copy(indexed, capsys):
    query = indexed[1] / "cat/0.png"
    assert searched(indexed, query, "--k", "3") == 0
    out = capsys.readouterr().out
    assert "12 images of folder, layer h of checkpoint 8; left out: 1 unreadable" in out
    assert "the newest; --index names one" in out
    lines = re.findall(r"^ +(\d)  ([\d.]+)  (\S+)  \((.*)\)$", out, re.M)
    assert [line[0] for line in lines] == ["1", "2", "3"]
    assert lines[:2] == [
        ("1", "1.0000", "cat/0.png", "train, label 0"),
        ("2", "1.0000", "dog/copy.png", "train, label 1"),
    ]
    assert float(lines[2][1]) < 1


def test_near_duplicates_need_no_query(indexed, capsys):
    assert searched(indexed, "--duplicates=0.99999") == 0
    out = capsys.readouterr().out
    assert "1 group with 2 of the 12 images" in out
    assert "cat/0.png" in out
    assert "dog/copy.png" in out


def test_a_page_shows_queries_neighbours_and_groups(indexed, tmp_path, capsys):
    queries = [indexed[1] / "cat/2.png", indexed[1] / "dog/1.png"]
    place = tmp_path / "<new> & page.html"
    assert searched(indexed, *queries, "--k=4", "--duplicates=0.99999", f"--html={place}") == 0
    assert f"written: {place}" in capsys.readouterr().out
    page = Parts(place.read_text())
    assert [each["id"] for each in page.all("h2")] == ["query-1", "query-2", "duplicates"]
    links = [each["href"].removeprefix("#") for each in page.all("a")]
    assert links == ["query-1", "query-2", "duplicates"]
    images = page.all("img")
    assert len(images) == 2 * (1 + 4) + 2
    assert all(each["src"].startswith("data:image/") and each["alt"] for each in images)
    assert images[1]["alt"] == "cat/2.png, cat"
    assert not page.all("script")
    assert not page.all("link")
    assert "cannot be read" not in page.text


def test_images_that_cannot_be_read_are_counted_on_the_page(indexed, tmp_path, capsys):
    moved = indexed[1].rename(indexed[1].with_name("moved"))
    try:
        query = moved / "cat/0.png"
        assert searched(indexed, query, "--k=2", f"--html={tmp_path / 'page.html'}") == 0
    finally:
        moved.rename(indexed[1])
    page = Parts((tmp_path / "page.html").read_text())
    assert "2 of 2 images cannot be read" in page.text
    assert "no such folder" in page.text
    assert page.text.count("no picture") == 2
    assert "2 of 2 images cannot be read" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ([], "QUERY: required"),
        (["missing.jpg"], "missing.jpg: must be an image"),
        (["--k=0", "a.jpg"], "--k"),
        (["--duplicates=1.5"], "--duplicates"),
        (["--duplicates", "--html=."], "--html=.: cannot be written"),
        (["--duplicates", "--index=nowhere"], "--index=nowhere: has no features.npz"),
    ],
)
def test_bad_input_is_one_line(indexed, argv, words, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert searched(indexed, *argv) == 2
    err = capsys.readouterr().err
    assert words in err
    assert err.count("\n") == 1


def test_a_query_that_is_no_image_stops_the_search_before_the_network_is_read(
    indexed, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("simclr_jax.evals.index.task", None)
    (tmp_path / "text.jpg").write_text("no image")
    assert searched(indexed, indexed[1] / "cat/0.png", tmp_path / "text.jpg") == 2
    assert capsys.readouterr().err == f"{tmp_path / 'text.jpg'}: cannot be read (not an image)\n"
