"""The manual: its commands run, the parts that it adds work, every module has a place in it.

A command runs as it is written, with overrides added that make it short. The commands of a page run
in their order, since later ones read what earlier ones have made; one that stands on two pages runs
once, whatever the order of its flags.
"""

import importlib
import importlib.util
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from simclr_jax.errors import ArgumentError
from simclr_jax.models.simclr import SimCLR
from simclr_jax.weights import formats
from support import tf1
from support.authors_names import named

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TUTORIAL = ROOT / "docs/tutorial.md"
SETUP = ConfigParser()
SETUP.read(ROOT / "setup.cfg")
PROGRAMS = dict(
    line.split(" = ") for line in SETUP["options.entry_points"]["console_scripts"].split("\n")[1:]
)
TINY = ["--config.model.depth=10", "--config.model.width=0.0625"]
SHORT = {
    "simclr-train": [
        *TINY, "--config.train.batch_size=32", "--config.train.steps=2",
        "--config.eval.batch_size=112", "--config.optim.warmup_epochs=0",
        "--config.data.image_size=8", "--config.log.tensorboard=false",
    ],
    "simclr-sweep": [
        *(flag.replace("config.", "config.run.") for flag in TINY),
        "--config.run.train.batch_size=8", "--config.run.train.steps=2",
        "--config.run.eval.batch_size=8", "--config.run.optim.warmup_epochs=0",
        "--config.run.data.image_size=8", "--config.run.log.tensorboard=false",
        "--config.measures.knn.eval.knn.k=1",
    ],
    "simclr-verify": [*TINY, "--images_per_device=2"],
    "simclr-preview": ["--images=2", "--views=2"],
    "simclr-plan": ["--host_views_per_second=1000"],  # Whose compiler is a stand-in.
    "simclr-convert": [],
    "simclr-eval": [],
    "python": ["--images=64", "--block_rows=32", "--rounds=1"],
    "pytest": ["--collect-only", "-q", "-p", "no:cacheprovider"],
}  # fmt: skip
STATUS = {"--sabotage=local_bn": 1}  # The exit status of commands with such an argument, if not 0.


def commands(page):
    """The commands of a page, one a line, without those that install the package."""
    found = []
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.M | re.S):
        for line in block.replace("\\\n", " ").splitlines():
            found += [part.strip() for part in line.split("&&")]
    return [command for command in found if command and not command.startswith("pip install")]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder of photographs, a class a subfolder."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for number in range(40):
        path = folder / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 10, 3), np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def authors(tmp_path_factory):
    """A TF1 checkpoint of the authors' with a small network."""
    model = SimCLR(depth=10, width=0.0625, stem="small", head_layers=3)
    variables = model.init(jax.random.key(1), jnp.zeros((1, 8, 8, 3)), train=False)
    prefix = str(tmp_path_factory.mktemp("authors") / "model.ckpt-40")
    tf1.write(prefix, named(variables)["tf1"])
    return prefix


def missing(command):
    """What this machine lacks for a command; None where nothing is."""
    if form := re.search(r"--format=(\w+)", command):
        try:
            formats.check_installed(form[1])
        except ArgumentError as error:
            return error.reason
    name = re.search(r"(cifar10|imagenette224)", command)
    data = Path(os.environ.get("TFDS_DATA_DIR", "nowhere"))
    if name and "simclr-train" in command and not (data / name[1]).exists():
        return name[1]
    return None


def status_of(words, monkeypatch):
    """The exit status of a command of ours, run in this process; of others, in their own."""
    if words[0] in PROGRAMS:
        module, _, function = PROGRAMS[words[0]].partition(":")
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            getattr(importlib.import_module(module), function)()
        return ended.value.code
    settings = {k: v for k, _, v in (word.partition("=") for word in words) if k.isupper()}
    rest = words[len(settings) :]
    settings.setdefault("XLA_FLAGS", os.environ["TESTS_XLA_FLAGS"])  # A device a process.
    programs = {"python": [sys.executable], "pytest": [sys.executable, "-m", "pytest"]}
    rest = [*programs.get(rest[0], rest[:1]), *rest[1:]]
    return subprocess.run(rest, env={**os.environ, **settings}).returncode


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where the commands run, and the commands that have run there."""
    folder = tmp_path_factory.mktemp("manual")
    for name in ("benchmarks", "docs", "launch", "tests", "setup.cfg"):
        (folder / name).symlink_to(ROOT / name)
    (study,) = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs/sweeps.md").read_text(), re.M | re.S
    )
    (folder / "study.py").write_text(study)
    return folder, set()


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if page != TUTORIAL], ids=lambda page: page.stem
)
def test_every_command_of_a_page_runs(page, folder, images, authors, compiler, monkeypatch):
    place, done = folder
    monkeypatch.chdir(place)
    if importlib.util.find_spec("torch"):
        simclr_torch = importlib.import_module("simclr_jax.weights.simclr_torch")
        monkeypatch.setitem(simclr_torch.BLOCKS, 10, (False, (1, 1, 1, 1)))
    lacking = []
    for command in commands(page):
        command = re.sub(r"configs/([\w/]+)\.py", r"\1", command)
        words = shlex.split(command.replace("IMAGES", str(images)).replace("CHECKPOINT", authors))
        run = next((word.partition("=")[2] for word in words if word.startswith("--run=")), ".")
        lack = missing(command) or (not Path(run).exists() and f"the run in {run}")
        if lack or frozenset(words) in done:
            lacking += [lack] if lack else []
            continue
        program = next(word for word in words if not word.partition("=")[0].isupper())
        short = SHORT.get(program, [])
        if program in PROGRAMS and not any(word.startswith("--config=") for word in words):
            short = []  # They change keys, and there are none to change.
        if program == "launch/local.sh":  # Whose processes do not know the tests' network.
            short = [flag.replace("depth=10", "depth=18") for flag in SHORT[words[2]]]
        if "profile_steps" in command:  # Of steps that the short run has.
            short = [*short, "--config.train.profile_steps=(1,2)"]
        status = status_of([*words, *short], monkeypatch)
        assert status == next((STATUS[word] for word in words if word in STATUS), 0), command
        done.add(frozenset(words))
    print(f"{page.name}: not run for want of {', '.join(lacking) or 'nothing'}")


@pytest.mark.slow
def test_the_tutorial_finds_digits_by_their_content(folder, monkeypatch):
    place, _ = folder
    monkeypatch.chdir(place)
    keys = ("train.epochs=6", "model.width=0.125", "eval.every_epochs=None")
    short = {"simclr-train": [f"--config.{key}" for key in keys]}
    for command in commands(TUTORIAL):
        words = shlex.split(command)
        assert status_of([*words, *short.get(words[0], [])], monkeypatch) == 0, command
    for page in ("first", "second", "found", "copies", "runs/tutorial/report"):
        assert Path(f"{page}.html").is_file()
    digits, guessed = (
        json.loads(next(Path("runs/tutorial/eval/linear").glob(f"{which}/result.json")).read_text())
        for which in ("[0-9]*/h,*", "untrained/h,*")
    )
    assert digits["top1"] > 0.6 > guessed["top1"]


def test_the_tutorial_shows_its_config():
    (shown,) = re.findall(r"^```python\n(.*?)^```", TUTORIAL.read_text(), re.M | re.S)
    assert shown in (ROOT / "docs/tutorial/config.py").read_text()


def add_parts(page, root):
    """Applies the diffs of a page to a copy of the project, and returns the tests among them."""
    tests = []
    for block in re.findall(r"^```diff\n(.*?)^```", page.read_text(), re.M | re.S):
        for name, lines in re.findall(r"^--- (.*)\n((?:(?!--- ).*\n)+)", block, re.M):
            path = root / name
            if lines.startswith("@@"):
                text = path.read_text()
                for hunk in lines.split("@@\n")[1:]:
                    old, new = (re.sub(rf"^[{x}].*\n", "", hunk, flags=re.M) for x in "+-")
                    old, new = (re.sub("^.", "", each, flags=re.M) for each in (old, new))
                    assert text.count(old) == 1, f"{name} has this {text.count(old)} times: {old}"
                    text = text.replace(old, new)
                path.write_text(text)
            else:
                assert not path.exists(), name
                path.write_text(re.sub(r"^\+", "", lines, flags=re.M))
                tests += [name] if name.endswith("_test.py") else []
    return tests


@pytest.mark.slow
def test_the_parts_that_the_manual_adds_work_together(tmp_path):
    for name in ("simclr_jax", "configs", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    tests = add_parts(ROOT / "docs/adding.md", tmp_path)
    shutil.copy(ROOT / "tests/support/all_parts.py", tmp_path / "tests/all_parts_test.py")
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", *tests, "tests/all_parts_test.py"]
    found = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout[-3000:]
    assert f"{len(tests) + 1} passed" in found.stdout


def test_commands_are_of_this_project():
    known = {*PROGRAMS, "python", "pytest"}
    for page in PAGES:
        for command in commands(page):
            program = next(w for w in shlex.split(command) if not w.partition("=")[0].isupper())
            assert program in known or (ROOT / program).is_file(), f"{page.name}: {command}"


def test_extras_that_the_manual_names_exist():
    extras = {*SETUP["options.extras_require"]}
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for names in re.findall(r"\.\[([\w,]+)\]", page.read_text()):
            assert {*names.split(",")} <= extras, page.name


def test_every_module_has_a_place_on_the_api_pages():
    pages = "".join(page.read_text() for page in (ROOT / "docs/api").glob("*.md"))
    documented = set(re.findall(r"automodule:: ([\w.]+)", pages))
    package = ROOT / "simclr_jax"
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in package.rglob("*.py")
        if path.name != "__init__.py"
    }
    assert modules <= documented


def test_the_layout_in_the_manual_is_the_one_that_is_there():
    design = (ROOT / "docs/design.md").read_text()
    tree = design[design.index("simclr_jax/\n") : design.index("\nconfigs/ ")]
    for path in (ROOT / "simclr_jax").rglob("*.py"):
        if path.name != "__init__.py":
            assert path.name in tree, path


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text()) <= 6000


def test_links_between_pages_lead_somewhere():
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for target in re.findall(r"\]\(([\w./]+\.md)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_tests_that_the_manual_names_exist():
    """`file_test::test_begins_so…`, and `…more…` of the file named before it."""
    tests = {path.stem: path.read_text() for path in (ROOT / "tests").rglob("*_test.py")}
    named_tests = 0
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        for line in page.read_text().splitlines():
            file = None
            for name, test, more in re.findall(r"`(?:(\w+_test)(?:::(\w+)…)?|…(\w+)…)`", line):
                file = name or file
                assert file in tests, f"{page.name}: {name}"
                begins = rf"^def {test}" if test else rf"^def \w*{more}" if more else ""
                assert re.search(begins, tests[file], re.M), f"{page.name}: {file}::{test or more}"
                named_tests += 1
    assert named_tests > 30
