"""One process-wide mesh of 8 CPU devices, and every warning and rank promotion an error."""

import atexit
import os
import shutil
import signal
import tempfile

# A shell ignores SIGINT for what runs in its background, and nohup SIGHUP, which tests send.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
if not os.environ.get("TESTS_CACHE"):  # That of the user is neither used nor filled.
    os.environ["TESTS_CACHE"] = os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, os.environ["TESTS_CACHE"], ignore_errors=True)
os.environ["JAX_PLATFORMS"] = "cpu"
# Small programs that run a few times: optimisations, and the fusions that are slow to compile,
# would cost more than they save. Tests that start processes hand these flags on.
os.environ["TESTS_XLA_FLAGS"] = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
)
os.environ["XLA_FLAGS"] = (
    f"--xla_force_host_platform_device_count=8 {os.environ['TESTS_XLA_FLAGS']}"
)

import jax
import numpy as np
import pytest

from simclr_jax import mesh as meshes
from simclr_jax.models import resnet

# A block a group: all that a ResNet is made of, at half of ResNet-18's time to compile.
resnet.BLOCKS[10] = (resnet.BasicBlock, (1, 1, 1, 1))
resnet.BLOCKS[14] = (resnet.BottleneckBlock, (1, 1, 1, 1))

jax.config.update("jax_numpy_rank_promotion", "raise")

pytest.register_assert_rewrite("support")
pytest_plugins = ["support.gcloud", "support.faults", "support.plans"]


def pytest_addoption(parser):
    parser.addoption("--kills", type=int, default=3, help="of training processes in faults_test")


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory):
    """Several tests run the same program; it is compiled once."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path_factory.mktemp("compiled")))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)


@pytest.fixture(scope="session")
def mesh8():
    assert jax.device_count() == 8
    return meshes.make()


@pytest.fixture(scope="session")
def mesh1():
    return meshes.make(jax.devices()[:1])


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """A tiny run of 8 steps with checkpoints 4 and 8; train_test compiles the same programs."""
    from simclr_jax import train
    from support.runs import TINY, status_of

    workdir = tmp_path_factory.mktemp("finished")
    flags = ["--config.train.steps=8", "--config.checkpoint.every_steps=4"]
    assert status_of(train.main, *TINY, *flags, f"--workdir={workdir}") == 0
    return workdir


@pytest.fixture(scope="session")
def unevaluated(finished, tmp_path_factory):
    """A copy of the run `finished` without the evaluations that other tests have made of it."""
    folder = tmp_path_factory.mktemp("unevaluated") / "run"
    return shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("eval"))


@pytest.fixture(scope="session")
def indexed(finished, tmp_path_factory):
    """A copy of the run `finished` that has embedded a folder, and that folder.

    It has 12 images of two classes; dog/copy.png is cat/0.png, and cat/broken.jpg is no image.
    """
    from PIL import Image

    from simclr_jax import eval as evaluation
    from support.runs import status_of

    folder = tmp_path_factory.mktemp("indexed")
    run, images = shutil.copytree(finished, folder / "run"), folder / "images"
    shutil.rmtree(run / "eval", ignore_errors=True)
    draw = np.random.default_rng(0)
    for number in range(11):
        path = images / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (12, 10, 3), np.uint8)).save(path)
    shutil.copy(images / "cat/0.png", images / "dog/copy.png")
    (images / "cat/broken.jpg").write_bytes(b"no image")
    data = ["--config.data.name=folder", f"--config.data.dir={images}"]
    assert status_of(evaluation.main, "--config=eval/embed", f"--run={run}", *data) == 0
    return run, images


@pytest.fixture(scope="session")
def scenes(tmp_path_factory):
    """A TFDS data directory with the dataset 'scenes', whose images have several labels."""
    from support.scenes import Scenes

    folder = tmp_path_factory.mktemp("scenes")
    Scenes(data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


@pytest.fixture
def rng():
    return np.random.default_rng(0)
