"""Images of one channel and of five through every command, from .npy files to the exports."""

import json

import numpy as np
import pytest
from PIL import Image

from simclr_jax import convert, preview, report, search, train
from simclr_jax import eval as evaluation
from simclr_jax.run.network import Network
from simclr_jax.store import checkpoint
from simclr_jax.store.rows import read_rows
from support.runs import SMALL, result, status_of

pytestmark = pytest.mark.slow
RANGE = "--config.data.value_range=(0,4095)"


def bands(number, channels):
    """An image (24, 20, C) of 12 bits whose class is that of its brighter half."""
    draw = np.random.default_rng(number)
    values = draw.integers(0, 2000, (24, 20, channels)).astype(np.uint16)
    values[:, slice(0, 10) if number % 2 else slice(10, 20)] += 2000
    return values


@pytest.fixture(scope="module", params=[1, 5], ids="{} channels".format)
def trained(request, tmp_path_factory):
    """A folder of 40 arrays of two classes and a broken one, and the run that was trained on it."""
    channels, root = request.param, tmp_path_factory.mktemp("channels")
    for number in range(40):
        path = root / "images" / ("left" if number % 2 else "right") / f"{number:02}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, bands(number, channels))
    np.save(root / "images/left/other.npy", bands(0, 2))
    flags = [
        "--config=folder", f"--config.data.dir={root / 'images'}", *SMALL, RANGE,
        f"--config.data.channels={channels}", "--config.data.image_size=16",
        "--config.data.held_out=0.4", "--config.train.steps=6", "--config.eval.batch_size=16",
        "--config.log.tensorboard=true", "--config.eval.every_steps=6",
    ]  # fmt: skip
    assert status_of(train.main, *flags, f"--workdir={root / 'run'}") == 0
    return channels, root, flags


def test_a_run_logs_and_its_first_convolution_has_the_channels(trained):
    channels, root, _ = trained
    rows = read_rows(root / "run/metrics.jsonl")
    assert np.isfinite([row["loss"] for row in rows]).all()
    assert "eval_top1" in rows[-1]
    network = Network.trained(checkpoint.Reader(root / "run"), 6)
    kernel = network.variables["params"]["encoder"]["stem_conv"]["kernel"]
    assert kernel.shape[:3] == (3, 3, channels)


@pytest.mark.parametrize("protocol", ["linear", "knn", "geometry", "transform"])
def test_evaluations_take_the_channels_from_the_run(trained, protocol):
    _, root, _ = trained
    flags = [f"--config=eval/{protocol}", f"--run={root / 'run'}"]
    if protocol == "linear":
        flags += ["--config.linear.augment=true", "--config.linear.batch_size=8"]
    if protocol == "transform":
        flags += ["--config.transform.epochs=1"]
    assert status_of(evaluation.main, *flags) == 0
    found = result(root / "run", protocol, 6, "*folder*")
    assert found["num_examples"] + found["unreadable"] == 16
    assert "colour" not in found


def test_a_network_is_fine_tuned(trained):
    _, root, _ = trained
    flags = ["--config.transfer.method=finetune", "--config.transfer.batch_size=8"]
    flags += ["--config.transfer.steps=2", "--config.transfer.lr_count=1"]
    flags += ["--config.transfer.decay_count=1"]
    run = [f"--run={root / 'run'}", "--config=eval/transfer"]
    assert status_of(evaluation.main, *run, *flags) == 0


def test_the_preview_shows_what_can_be_shown(trained, tmp_path, capsys):
    channels, _, flags = trained
    page = tmp_path / "page.html"
    assert status_of(preview.main, *flags, f"--html={page}", "--images=2", "--views=2") == 0
    out, text = capsys.readouterr().out, page.read_text()
    assert "1 of 41 images is broken" in out
    assert "2 channels, where channels=" in out
    shown = "first three are shown" if channels == 5 else "are shown in grey"
    assert shown in text
    assert "left out, as of red, green and blue: hue and saturation of the jitter, grey" in text
    assert "x 0." in text or "x 1." in text
    assert "saturation x" not in text
    with Image.open(page.with_suffix(".png")) as sheet:
        assert sheet.mode == "RGB"


def test_the_nearest_images_are_found_and_a_report_is_written(trained, tmp_path):
    channels, root, _ = trained
    run = f"--run={root / 'run'}"
    assert status_of(evaluation.main, "--config=eval/embed", run, "--config.embed.split=all") == 0
    page = tmp_path / "found.html"
    query = root / "images/left/03.npy"
    assert status_of(search.main, run, str(query), f"--html={page}") == 0
    assert "03.npy" in page.read_text()
    made = tmp_path / "report.html"
    assert status_of(report.main, str(root / "run"), f"--html={made}") == 0
    assert f"{channels} channel" in made.read_text()


@pytest.mark.parametrize("form", ["stablehlo", "torchvision"])
def test_exports_say_what_they_take(trained, form, monkeypatch):
    channels, root, _ = trained
    if form == "torchvision":
        pytest.importorskip("torch", reason="needs simclr_jax[torch]")
        from simclr_jax.weights import simclr_torch

        monkeypatch.setitem(simclr_torch.BLOCKS, 10, (False, (1, 1, 1, 1)))
    flags = [f"--run={root / 'run'}", f"--format={form}"]
    assert status_of(convert.main, "export", *flags) == 0
    about = json.loads((root / f"run/export/{form}-6/about.json").read_text())
    assert (about["channels"], about["value_range"]) == (channels, [0, 4095])
    assert "0 for 0 and 1 for 4095" in about["preprocessing"]
