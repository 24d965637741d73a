"""What JAX and TensorFlow find in the environment, set right before they are imported."""

import glob
import importlib.util
import os
from importlib import metadata

from simclr_jax.run import programs


def prepare() -> None:
    """Keeps JAX from looking for a TPU, and Keras for a home, where there is none.

    TensorFlow is imported without Keras. JAX keeps what it compiles, and computes on the CPU in the
    thread that asks for it, unless the environment says otherwise.
    """
    others = importlib.util.find_spec("jax_plugins") or metadata.entry_points(group="jax_plugins")
    if importlib.util.find_spec("libtpu") and not _chips() and not others:
        # With libtpu installed, for simclr-plan, JAX would print six lines of errors about the
        # environment of a TPU's host. With a plug-in for a GPU as well, JAX is left to choose.
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    # The end of the augmentation runs in threads of the input pipeline. With JAX's asynchronous
    # dispatch a CPU would compute for only one of them at a time.
    os.environ.setdefault("JAX_CPU_ENABLE_ASYNC_DISPATCH", "0")
    # TensorFlow imports Keras at once, and that all of Matplotlib and scikit-learn, to use neither
    # here; its older Keras is not installed, so nothing is imported.
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")
    if os.path.expanduser("~") == "~":
        # Keras, which TensorFlow imports, would make a folder called '~' for its settings.
        os.environ.setdefault("KERAS_HOME", os.devnull)
    programs.keep()


def has_tpu() -> bool:
    """Whether this host has TPU chips, and JAX is to use them."""
    if os.environ.get("JAX_PLATFORMS", "tpu").split(",")[0] != "tpu":
        return False
    return bool(_chips()) and importlib.util.find_spec("libtpu") is not None


def _chips() -> list[str]:
    """The device files of TPU chips."""
    return glob.glob("/dev/accel*") + glob.glob("/dev/vfio/*")
