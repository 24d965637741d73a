"""The records that come with the package, in a checkout and where it is installed."""

from importlib import metadata
from pathlib import Path

import pytest

from simclr_jax.config import shipped


def test_every_record_of_the_checkout_has_its_name():
    folder = Path(__file__).parents[2] / "configs"
    files = {str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.py")}
    assert set(shipped.records()) == files
    assert {"digits", "eval/linear"} <= files


@pytest.mark.parametrize("name", ["eval/knn", "configs/eval/knn", "configs/eval/knn.py"])
def test_a_record_is_found_by_its_name_or_its_path(name):
    assert shipped.find(name) == Path(__file__).parents[2] / "configs/eval/knn.py"
    assert shipped.find(f"x{name}") is None


def test_an_installed_package_finds_its_records(monkeypatch):
    """Where there is no checkout, the distribution lists the files beside it."""
    monkeypatch.setattr(shipped, "_CHECKOUT", Path("/nowhere"))
    file = metadata.PackagePath("../../../share/simclr_jax/configs/eval/knn.py")
    file.dist = metadata.Distribution.at("/opt/env/lib/python3/site-packages/simclr_jax.dist-info")
    monkeypatch.setattr(shipped.metadata, "files", lambda name: [file])
    assert shipped.records() == {"eval/knn": Path("/opt/env/share/simclr_jax/configs/eval/knn.py")}
