"""simclr-report: the page by its parts, what is refused, and that a run is left as it is."""

import itertools
import json
import re
import shutil
from html.parser import HTMLParser

import pytest

from simclr_jax import report
from simclr_jax.config import record
from simclr_jax.errors import ArgumentError
from simclr_jax.evals import results
from support.chromium import needs_chromium, seen
from support.runs import changed_at, status_of

SECTIONS = ["numbers", "curves", "evaluations", "keys"]
OF_PICTURES = ["pictures", "confusion", "failures", "map", "filters"]
VOID = {"meta", "img", "path", "circle", "rect", "link", "br"}


class Parts(HTMLParser):
    """The parts of a page: elements with their attributes, headings, links, and open elements."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.text, self._open = [], [], []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self._open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def parts(path):
    return Parts(path.read_text())


@pytest.fixture(scope="module")
def page(unevaluated, tmp_path_factory):
    """The page of the shared run, with one result of an evaluation."""
    folder = shutil.copytree(unevaluated, tmp_path_factory.mktemp("report") / "<my> run")
    result = {
        "protocol": "knn", "checkpoint_step": 8, "untrained": False, "dataset": "digits",
        "top1": 0.5, "top5": 0.875, "num_examples": 360, "recall_at_1": 0.25,
    }  # fmt: skip
    results.write(folder / "eval", folder / "eval/knn/8/h,digits,k=20", result)
    before = changed_at(folder)
    assert status_of(report.main, folder, "--images", "50") == 0
    after = changed_at(folder)
    assert after.pop(folder / "report.html")
    assert {path: after[path] for path in before if path != folder} == {
        path: time for path, time in before.items() if path != folder
    }
    assert after.keys() == before.keys()
    return folder / "report.html"


def test_a_page_has_all_sections_and_links_to_them(page):
    found = parts(page)
    ids = [each["id"] for each in found.all("h2")]
    assert ids == [*SECTIONS, *OF_PICTURES]
    assert [each["href"] for each in found.all("a")] == [f"#{name}" for name in ids]


def test_a_page_needs_nothing_else(page):
    found = parts(page)
    for _, attributes in found.elements:
        for key in ("src", "href"):
            assert re.match("data:image/|#", attributes.get(key, "#"))
    assert not re.search(r"url\((?!data:)|@import|https?://", page.read_text())
    assert found.all("link") == []
    assert len(page.read_bytes()) < 2_000_000


def test_what_is_seen_is_said_as_well(page):
    found = parts(page)
    assert all("alt" in each for each in found.all("img"))
    charts = [each for each in found.all("svg") if "data-lines" in each]
    assert len(charts) > 10
    assert all(each["aria-label"] and each["tabindex"] == "0" for each in charts)
    (cloud,) = [each for each in found.all("svg") if "data-dots" in each]
    assert len(json.loads(cloud["data-dots"])["texts"]) == 50
    levels = [int(tag[1]) for tag, _ in found.elements if re.fullmatch(r"h\d", tag)]
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


def test_names_are_escaped_and_numbers_are_those_of_the_run(page):
    assert "<my>" not in page.read_text()
    text = " ".join(" ".join(parts(page).text).split())
    assert "<my> run" in text
    assert "Finished: 8 of 8 steps." in text
    assert "no learning: 2·log(2B - 1) = 6.868" in text
    assert "h, digits, k=20 50.0% 87.5% 360" in text
    assert "recall at 1 0.25" in text
    assert "model.width 0.0625 1.0" in text
    assert "best evaluation top-1 50.0%, knn at step 8" in text
    assert "Of 50 images with labels" in text


def test_without_pictures_nothing_is_computed(unevaluated, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("simclr_jax.reports.pictures.newest", None)
    to = tmp_path / "page.html"
    assert status_of(report.main, unevaluated, "--images=0", f"--html={to}") == 0
    assert capsys.readouterr().out.startswith(f"written: {to}\nnext: ")
    assert "Left out by --images=0." in to.read_text()
    assert "simclr-eval --config=eval/knn --run=" in to.read_text()
    assert [each["id"] for each in parts(to).all("h2")] == [*SECTIONS, "pictures"]


def test_filters_that_are_not_shown_are_counted(unevaluated, tmp_path, monkeypatch):
    monkeypatch.setattr("simclr_jax.reports.pictures.FILTERS", 3)
    monkeypatch.setattr("simclr_jax.reports.pictures.sample", refused)
    to = tmp_path / "page.html"
    assert status_of(report.main, unevaluated, f"--html={to}") == 0
    assert "the first 3 of its 4 filters, each filter scaled" in "".join(parts(to).text)


def refused(*_, **__):
    raise ArgumentError("directory", "/gone", "no such folder")


def test_images_that_are_gone_leave_the_rest_of_the_page(unevaluated, tmp_path, monkeypatch):
    def gone(config):
        raise ArgumentError("directory", "/gone", "no such folder")

    monkeypatch.setattr("simclr_jax.config.sources.open_dataset", gone)
    to = tmp_path / "page.html"
    assert status_of(report.main, unevaluated, f"--html={to}") == 0
    found = parts(to)
    assert "There are none: config.data.dir='/gone': no such folder; --data_dir=" in "".join(
        found.text
    )
    assert [each["id"] for each in found.all("h2")] == [*SECTIONS, "pictures", "filters"]


def test_a_run_without_anything_but_its_config_has_a_page(unevaluated, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    shutil.copy(unevaluated / "config.json", run)
    assert status_of(report.main, run) == 0
    text = "".join(parts(run / "report.html").text)
    assert "No rows of training yet" in text
    assert "The run has no checkpoint yet" in text
    assert "No evaluation yet. It needs a checkpoint." in text


def test_imported_weights_and_rows_of_another_kind_have_a_page(unevaluated, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    described = json.loads((unevaluated / "config.json").read_text())
    described["config"]["data"] |= {"name": None, "num_examples": None}
    record.write(report.epath.Path(run), described)
    assert status_of(report.main, run) == 0
    assert "Its weights were imported" in "".join(parts(run / "report.html").text)
    shutil.copy(unevaluated / "config.json", run)
    rows = "".join(f'{{"step": {k}, "mine": {k}}}\n' for k in range(1, 200))
    (run / "metrics.jsonl").write_text(f"{rows}no row\n")
    assert status_of(report.main, run) == 0
    assert "Mine by step" in (run / "report.html").read_text()


def test_several_runs_are_side_by_side(unevaluated, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    other = shutil.copytree(unevaluated, tmp_path / "other")
    described = json.loads((other / "config.json").read_text())
    described["config"]["seed"] = 7
    record.write(report.epath.Path(other), described)
    assert status_of(report.main, unevaluated, other) == 0
    found = parts(tmp_path / "report.html")
    text = " ".join(" ".join(found.text).split())
    assert "seed 0 7 0" in text
    assert "1 of " in text
    assert "Pictures are made for a single run" in text
    charts = [json.loads(each["data-lines"]) for each in found.all("svg") if "data-lines" in each]
    assert all([line["name"] for line in lines] == [unevaluated.name, "other"] for lines in charts)


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ([], "RUN: required"),
        (["nowhere"], "RUN=nowhere: no run there (no config.json)"),
        (["RUN", "RUN"], "is given twice"),
        (["RUN", "--images=1"], "--images=1: must be 0, or at least 2"),
        (["RUN", "--images=-1"], "--images"),
        (["RUN", "--map=tsne"], "tsne"),
        (["RUN", "--html=RUN"], "cannot be written (is a folder)"),
        (["RUN", "--html=/proc/none/page.html"], "--html=/proc/none/page.html: cannot be written"),
        (["RUN", "--pictures=0"], "pictures"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(unevaluated, monkeypatch, capsys, flags, line):
    monkeypatch.setattr("simclr_jax.reports.pictures.newest", None)
    given = [flag.replace("RUN", str(unevaluated)) for flag in flags]
    assert status_of(report.main, *given) == 2
    said = capsys.readouterr().err
    assert line in said
    assert said.count("\n") == 1


def test_a_map_by_a_library_that_is_missing_is_refused(unevaluated, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert status_of(report.main, unevaluated, "--map=umap") == 2
    assert "pip install -e '.[umap]'" in capsys.readouterr().err


def test_a_damaged_description_is_one_line(unevaluated, tmp_path, capsys):
    run = shutil.copytree(unevaluated, tmp_path / "run")
    (run / "config.json").write_text('{"config": 3')
    assert status_of(report.main, run) == 2
    assert "config.json: damaged" in capsys.readouterr().err
    assert not (run / "report.html").exists()


def test_a_damaged_checkpoint_is_told_on_the_page(unevaluated, tmp_path, capsys):
    run = shutil.copytree(unevaluated, tmp_path / "run")
    for path in (run / "checkpoints/8/model").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    assert status_of(report.main, run) == 0
    assert "damaged" in "".join(parts(run / "report.html").text)


@pytest.mark.slow
@needs_chromium
def test_the_values_of_a_chart_and_the_images_of_the_map_are_shown_on_touch_and_by_keys(
    page, tmp_path
):
    found = seen(
        page,
        tmp_path,
        """
        const fire = (svg, name, x, y) => svg.dispatchEvent(
          new PointerEvent(name, {clientX: x, clientY: y, pointerType: "touch"}));
        const press = (svg, key) => svg.dispatchEvent(new KeyboardEvent("keydown", {key}));
        const chart = document.querySelector("svg[data-lines]");
        const readout = chart.parentNode.querySelector(".readout");
        const box = chart.getBoundingClientRect();
        const told = [];
        fire(chart, "pointerdown", box.left + 60, box.top + 40); told.push(readout.textContent);
        press(chart, "ArrowRight"); told.push(readout.textContent);
        press(chart, "Escape"); told.push(readout.textContent);
        const cloud = document.querySelector("svg[data-dots]");
        const about = cloud.parentNode.querySelector(".about");
        const dot = cloud.querySelectorAll("circle")[3].getBoundingClientRect();
        fire(cloud, "pointermove", dot.left + dot.width / 2, dot.top + dot.height / 2);
        told.push(getComputedStyle(about).display, about.textContent);
        press(cloud, "Escape"); told.push(getComputedStyle(about).display);
        press(cloud, "ArrowRight"); told.push(getComputedStyle(about).display);
        told.push(document.documentElement.scrollWidth <= innerWidth);
        return told.join("|");
        """,
    ).split("|")
    first, second, none, shown, image, hidden, again, fits = found
    assert first.startswith("step 1: contrastive loss ")
    assert second.startswith("step 2: contrastive loss ")
    assert none == ""
    assert (shown, hidden, again) == ("block", "none", "block")
    assert re.fullmatch(r"\d, image test/\d+", image)
    assert fits == "true"
