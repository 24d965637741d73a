"""The layout: imports go one way, files and functions stay small, keys and flags stay above."""

import ast
import re
import subprocess
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "simclr_jax"
# The rooms and the files beside them, from the top; imports go downwards only.
LEVELS = [
    {"train", "eval", "verify", "plan", "convert"},
    {"cli"},
    {"evals", "tpu"},
    {"run"},
    {"config"},
    {"step", "objectives", "data", "weights"},
    {"augment", "store"},
    {"state"},
    {"models", "losses", "optim", "mesh", "processes"},
    {"errors"},
]
LEVEL = {name: number for number, names in enumerate(LEVELS) for name in names}
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in PACKAGE.rglob("*.py")
}


def imports_of(path):
    """The modules of the package that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in MODULES else node.module for name in names}
    return {name for name in found if name in MODULES}


def room_of(module):
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_go_one_way(module):
    own = room_of(module)
    for imported in imports_of(MODULES[module]):
        other = room_of(imported)
        if other == own or not other:
            continue
        assert LEVEL[own] <= LEVEL[other], f"{module} imports {imported}"
        assert other not in LEVELS[0], f"{module} imports the command {imported}"


def test_no_import_is_circular():
    graph = {name: imports_of(path) - {name} for name, path in MODULES.items()}
    assert list(TopologicalSorter(graph).static_order())


def test_every_file_has_a_level():
    assert {room_of(module) for module in MODULES if module != "simclr_jax"} == set(LEVEL)


def test_the_front_room_is_small():
    assert len([path for path in PACKAGE.iterdir() if path.is_file()]) <= 14


def sources(*endings):
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    ).stdout.splitlines()  # fmt: skip
    return [ROOT / name for name in listed if name.endswith(endings) and (ROOT / name).exists()]


def test_files_have_at_most_350_lines():
    long = {path.name: path.read_text().count("\n") for path in sources(".py", ".sh")}
    assert not {name: lines for name, lines in long.items() if lines > 350}


def test_functions_have_at_most_60_lines():
    long = []
    for path in sources(".py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60:
                long.append(f"{path.name}: {node.name}")
    assert not long


def test_neither_keys_nor_flags_are_known_below_the_config():
    key = re.compile(r"--\w|\bconfig\.\w+\.|\b(data|model|loss|optim|train|eval|augment)\.\w+=")
    for module, path in MODULES.items():
        if room_of(module) not in LEVEL or LEVEL[room_of(module)] <= LEVEL["config"]:
            continue
        tree = ast.parse(path.read_text())
        documentation = {
            id(node.body[0].value)
            for node in ast.walk(tree)
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
            and ast.get_docstring(node)
        }
        for node in ast.walk(tree):
            text = node.value if isinstance(node, ast.Constant) else None
            if isinstance(text, str) and id(node) not in documentation:
                assert not key.search(text), f"{module}: {text}"


def test_tests_mirror_the_package():
    others = {"any_override_test.py"}
    for path in (ROOT / "tests").glob("*/*_test.py"):
        module = PACKAGE / path.parent.name / path.name.replace("_test.py", ".py")
        assert module.exists() or path.name in others, path
