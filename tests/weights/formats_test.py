"""What an export needs is asked before it begins."""

import importlib.util

import pytest

from simclr_jax.errors import ArgumentError
from simclr_jax.weights import formats


def test_packages_that_are_missing_are_named_with_the_extra_that_has_them(monkeypatch):
    real = importlib.util.find_spec
    gone = {"onnxscript", "onnxruntime"}
    there = {"torch", "safetensors", "onnx"}
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name: None if name in gone else object() if name in there else real(name),
    )
    with pytest.raises(ArgumentError) as error:
        formats.check_installed("onnx")
    assert str(error.value) == (
        "format='onnx': needs onnxscript, onnxruntime; pip install -e '.[onnx]'"
    )
    for name in ("torchvision", "huggingface", "stablehlo", "savedmodel"):
        formats.check_installed(name)


def test_what_formats_need_is_in_the_extras(pytestconfig):
    from configparser import ConfigParser

    setup = ConfigParser()
    setup.read(pytestconfig.rootpath / "setup.cfg")
    for extra, packages in formats._PACKAGES.values():
        listed = setup["options.extras_require"][extra]
        listed += setup["options.extras_require"]["torch"] if "simclr_jax[torch]" in listed else ""
        for package in packages:
            assert f"\n{package}>=" in listed
