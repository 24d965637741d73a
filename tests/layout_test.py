"""The order that the project keeps: what may import what, how long a file is, where its tests are.

Nothing is imported to see it: the sources are parsed.
"""

import ast
import re
from collections import Counter
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from simclr_jax.config import default, overrides

ROOT = Path(__file__).parents[1]
PACKAGE, TESTS = ROOT / "simclr_jax", ROOT / "tests"
# Files and folders of the package, from what is called to what it is made of. Each imports from
# itself and from the levels below its own.
LEVELS = [
    {"__main__"},
    {"sweep"},
    {"train", "eval", "verify", "plan", "convert", "preview", "report", "search"},
    {"cli"},
    {"sweeps", "reports"},
    {"evals", "tpu"},
    {"run"},
    {"config"},
    {"step"},
    {"objectives", "data", "weights"},
    {"augment", "store"},
    {"state"},
    {"models", "losses", "optim", "mesh", "processes", "pages"},
    {"errors"},
]
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}
COMMANDS = LEVELS[1] | LEVELS[2]
# Tests of the project as a whole, or of what is no Python module.
OF_NO_MODULE = {
    "channels_test.py", "config/any_override_test.py", "docs_test.py", "doctest_test.py",
    "end_to_end_test.py", "faults_input_test.py", "faults_test.py", "launch_billing_test.py",
    "launch_commands_test.py", "launch_local_test.py", "launch_train_test.py", "layout_test.py",
    "losses/contrastive_test.py",
}  # fmt: skip


def sources():
    """Every file of Python or of a shell that is the project's own."""
    for folder in ("simclr_jax", "configs", "launch", "benchmarks", "docs", "tests", ".ci"):
        for path in sorted((ROOT / folder).rglob("*")):
            if "_build" in path.parts or not path.is_file():
                continue
            if path.suffix in (".py", ".sh") or path.read_bytes().startswith(b"#!"):
                yield path


def in_project(path):
    return path.relative_to(ROOT).as_posix()


@cache
def modules():
    """{dotted name: what is parsed} of the package; a folder's name is that of its __init__."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(), path.name)
    return found


@cache
def imports():
    """{module: the modules of the package that it imports, inside functions too}."""
    graph = {}
    for name, tree in modules().items():
        found = set()
        for node in ast.walk(tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{name}: a relative import"
                below = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= {inner if inner in modules() else node.module for inner in below}
        graph[name] = {other for other in found if other.split(".")[0] == "simclr_jax"}
    return graph


def room(module):
    """The file or the folder directly below the package; '' of the package itself."""
    return ".".join(module.split(".")[1:2])


def test_every_file_has_a_level():
    assert {room(module) for module in modules()} - {""} == set(LEVEL)


def test_imports_go_one_way():
    wrong = [
        f"{module} imports {other}"
        for module, others in imports().items()
        for other in others
        if room(module) != room(other) and LEVEL[room(module)] >= LEVEL[room(other)]
    ]
    assert not wrong


def test_the_package_itself_imports_nothing_of_its_own():
    assert not imports()["simclr_jax"]


def test_commands_are_imported_by_a_sweep_alone_and_what_they_share_by_them_alone():
    for module, others in imports().items():
        if room(module) != "sweep":
            assert not {room(other) for other in others} & COMMANDS, module
        above = COMMANDS | LEVELS[0]
        assert "simclr_jax.cli" not in others or room(module) in above, module


def test_no_import_is_circular():
    try:
        TopologicalSorter(imports()).prepare()
    except CycleError as error:
        pytest.fail(" → ".join(error.args[1]))


def test_the_front_room_is_small():
    assert len([path for path in PACKAGE.iterdir() if path.is_file()]) <= 18


def test_files_have_at_most_350_lines():
    lines = {in_project(path): len(path.read_text().splitlines()) for path in sources()}
    assert len(lines) > 100
    assert {path: count for path, count in lines.items() if count > 350} == {}


def test_functions_have_at_most_60_lines():
    lines = {
        f"{in_project(path)}: {node.name}": node.end_lineno - node.lineno + 1
        for path in sources()
        if path.suffix == ".py"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: count for name, count in lines.items() if count > 60} == {}


def literals(tree):
    """The strings of a module that are no docstrings."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, documented) and node.body and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        text = node.value if isinstance(node, ast.Constant) else None
        if isinstance(text, str) and id(node) not in docstrings:
            yield text


def test_neither_keys_nor_flags_are_known_below_the_config():
    """Its errors name arguments; the command line knows what the user calls them."""
    keys = [re.escape(key) for key in overrides.keys(default.get_config()) if "." in key]
    told = re.compile(rf"--\w|\bconfig\.(?!json\b)\w|\b(?:{'|'.join(keys)})\b")
    for line in ("--to=x", "config.seed", "set data.num_classes=0", "a lower optim.lr"):
        assert told.search(line), line
    for module, tree in modules().items():
        if module != "simclr_jax" and LEVEL[room(module)] > LEVEL["config"]:
            for text in literals(tree):
                assert not told.search(text), f"{module}: {text!r}"


def test_tests_mirror_the_package():
    for path in TESTS.rglob("*_test.py"):
        place = path.relative_to(TESTS)
        module = PACKAGE / place.with_name(place.name.replace("_test.py", ".py"))
        assert module.is_file() != (place.as_posix() in OF_NO_MODULE), place


def test_no_two_tests_have_the_same_name():
    """pytest imports a test by its file's name alone."""
    names = Counter(path.name for path in TESTS.rglob("*_test.py"))
    assert [name for name, count in names.items() if count > 1] == []
