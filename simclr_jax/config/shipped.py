"""The experiment records that come with the package, by name: 'digits', 'eval/linear', …"""

import runpy
from importlib import metadata
from pathlib import Path

from ml_collections import ConfigDict

_CHECKOUT = Path(__file__).parents[2]
_INSTALLED = "share/simclr_jax/configs"


def find(name: str) -> Path | None:
    """The file of an experiment record.

    >>> find("digits") == find("configs/digits.py")
    True

    Args:
      name: The name, such as 'eval/linear', or the path in the repository, 'configs/digits.py'.

    Returns:
      The path, in the checkout or where the package is installed; None: there is no such record.
    """
    return records().get(name.removeprefix("configs/").removesuffix(".py"))


def records() -> dict[str, Path]:
    """The file of every experiment record by its name, sorted."""
    if (_CHECKOUT / "pyproject.toml").is_file():
        folder = _CHECKOUT / "configs"
        found = {path.relative_to(folder): path for path in folder.rglob("*.py")}
    else:
        installed = [file for file in metadata.files("simclr_jax") or () if file.suffix == ".py"]
        found = {
            Path(str(file).rpartition(f"{_INSTALLED}/")[2]): Path(str(file.locate()))
            for file in installed
            if _INSTALLED in str(file)
        }
    return {str(path.with_suffix("")): file.resolve() for path, file in sorted(found.items())}


def load(name: str, arguments: str | None = None) -> ConfigDict:
    """The config of an experiment record, for a record that builds on it.

    >>> load("digits").model.depth
    18

    Args:
      name: The name, such as 'digits'.
      arguments: Its arguments, such as 'recipe=small_batch'; None: none.

    Raises:
      ValueError: There is no such record, or it does not take the arguments.
    """
    path = find(name)
    if path is None:
        raise ValueError(f"{name!r}: known records are {', '.join(records())}")
    scope = runpy.run_path(str(path))
    return scope["get_config"](*filter(None, [arguments]))
