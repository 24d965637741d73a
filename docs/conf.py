"""Settings of Sphinx: `sphinx-build -W -b html docs docs/_build`."""

import re
from importlib import metadata, util
from typing import Any

project = "simclr_jax"
author = "The simclr_jax authors"
project_copyright = "The simclr_jax authors; Apache 2.0"
release = version = metadata.version("simclr_jax")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "simclr_jax"
pygments_style = "friendly"
pygments_dark_style = "monokai"
html_static_path = ["_static"]
html_css_files = ["tables.css"]

myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]

# Single backticks in docstrings are code, as in Markdown.
default_role = "code"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 88
autodoc_default_options = {"members": True}

# PyTorch is an extra of the package; these pages are built with or without it.
autodoc_mock_imports = [name for name in ("torch", "safetensors") if util.find_spec(name) is None]


FLAX_FIELDS = ("parent", "name", "scope")  # that every module has


def skip(app: Any, what: str, name: str, member: Any, skipped: bool, options: Any) -> bool | None:
    """Leaves out the fields of named tuples, which their classes describe, and those of Flax."""
    return True if type(member).__name__ == "_tuplegetter" or name in FLAX_FIELDS else None


def shorten(
    app: Any, what: str, name: str, thing: Any, options: Any, arguments: str | None, returns: Any
) -> tuple[str, Any] | None:
    """Cuts the arguments that Flax gives every module off the end of its signature."""
    if arguments and "_Sentinel" in arguments:
        return re.sub(r"(, )?parent: .*\)$", ")", arguments), returns
    return None


def setup(app: Any) -> None:
    app.connect("autodoc-skip-member", skip)
    app.connect("autodoc-process-signature", shorten)
