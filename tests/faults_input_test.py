"""Real training processes: given odd images, numbers that diverge, what is no input, no disk."""

import contextlib
import importlib.util
import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from simclr_jax import convert, preview, report, search, train
from simclr_jax import eval as evaluation
from support.faults import checkpoints, ended, wait, wait_for_rows
from support.runs import TINY, changed_at, rows, saved_digests, status_of

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name != "posix", reason="needs signals")]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """47 images, among them some that are no photographs: four cannot be read."""
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)

    def random(height, width, mode="RGB"):
        pixels = rng.integers(0, 256, (height, width, 3), np.uint8)
        return Image.fromarray(pixels).convert(mode)

    for number in range(36):
        random(14, 12).save(folder / f"photograph {number:02}.jpg")
    random(14, 12, "CMYK").save(folder / "cmyk.jpg")
    random(1, 1).save(folder / "one pixel.png")
    random(1, 700).save(folder / "one row.png")
    random(14, 12, "P").save(folder / "palette.png")
    random(14, 12, "RGBA").save(folder / "transparent.png")
    Image.fromarray(rng.integers(0, 65536, (14, 12), np.uint16)).save(folder / "16 bits.png")
    random(14, 12).save(folder / "moving.gif", save_all=True, append_images=[random(14, 12)])
    Image.new("1", (30000, 30000)).save(folder / "bomb.png")
    whole = (folder / "photograph 00.jpg").read_bytes()
    (folder / "cut short.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").touch()
    (folder / "\x1b[31mtext\n.jpg").write_text("no image")
    return folder


@pytest.fixture(scope="module")
def together(trainer, photographs, tmp_path_factory):
    """{name: (process, workdir)} of two runs that start at once, for it takes less time."""
    flags = {
        "diverging": [
            "--config.optim.name=momentum", "--config.optim.lr=1e30",
            "--config.optim.warmup_epochs=0.03", "--config.checkpoint.every_steps=1",
        ],
        "photographs": [
            "--config.data.name=folder", f"--config.data.dir={photographs}",
            "--config.data.eval_split=train",
            "--config.train.batch_size=16", "--config.eval.batch_size=16",
        ],
    }  # fmt: skip
    started = {}
    for name, overrides in flags.items():
        workdir = tmp_path_factory.mktemp(name)
        started[name] = trainer(workdir, *overrides), workdir
    return started


def test_images_of_every_kind_are_trained_on_and_broken_ones_replaced(together, photographs):
    """Among them files that vanish while the run goes on."""
    process, workdir = together["photographs"]
    wait_for_rows(process, workdir, 2)
    for number in range(4):
        (photographs / f"photograph {number:02}.jpg").unlink()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "8 unreadable images were replaced" in out
    listed = json.loads((workdir / "unreadable.json").read_text())["train"]
    assert (len(listed["indices"]), len(listed["first"])) == (8, 8)
    for name in ("bomb.png", "cut short.jpg", "empty.jpg", "text", "photograph 00.jpg"):
        assert name in err
    assert "\x1b" not in err


def test_numbers_that_are_not_finite_end_the_run_with_1(together):
    """The last checkpoint is of a step before; what the batch held is written down."""
    process, workdir = together["diverging"]
    status, _, line = ended(process)
    assert status == 1
    last = max(checkpoints(workdir))
    assert line.startswith(f"step {last + 1}: ")
    assert "at learning rate" in line
    assert rows(workdir)[-1]["step"] == last
    batch = json.loads((workdir / f"nonfinite/{last + 1}.json").read_text())
    assert len(batch["examples"]) == 32


def test_what_cannot_be_trained_is_refused_with_2_and_a_line(trainer, whole, tmp_path):
    """All at once, for they say it before anything begins; what is there stays as it is."""
    empty = tmp_path / "empty"
    empty.mkdir()
    model, loss = tmp_path / "model", tmp_path / "loss"
    for run in (model, loss):
        shutil.copytree(whole(), run)
    before = changed_at(tmp_path)
    refused = {
        f"config.data.dir='{empty}'": [
            tmp_path / "new", "--config.data.name=folder", f"--config.data.dir={empty}",
        ],
        "config.model.head_dim=8 (the run has 64)": [model, "--config.model.head_dim=8"],
        "config.loss.temperature=0.2 (the run has": [loss, "--config.loss.temperature=0.2"],
        f"--workdir={loss}/config.json/run: cannot be made": [loss / "config.json/run"],
    }  # fmt: skip
    started = {line: trainer(*flags) for line, flags in refused.items()}
    for expected, process in started.items():
        status, out, line = ended(process)
        assert status == 2
        assert expected in line
        assert not out
    assert changed_at(tmp_path) == before
    assert not (tmp_path / "new").exists()


def small_disk(folder, kilobytes):
    """A command's prefix that mounts a small disk on the folder, if this machine lets it."""
    mount = f"mount -t tmpfs -o size={kilobytes}k tmpfs '{folder}'"
    if subprocess.run(["unshare", "-rm", "sh", "-c", mount], capture_output=True).returncode:
        pytest.skip("may not mount a disk here")
    return [
        "unshare",
        "-rm",
        "sh",
        "-c",
        f"""{mount}; "$@"; status=$?; cp -r '{folder}' '{folder}'-was; exit $status""",
        "sh",
    ]


def assert_full(process):
    status, _, line = ended(process)
    assert status == 3, line
    assert line.startswith("no space left on device; what was saved before is kept (")


def test_a_full_disk_ends_with_3_and_what_was_saved_is_good(trainer, steps, whole, tmp_path):
    """The disk holds some checkpoints, and then no more, as none is pruned."""
    folder = tmp_path / "disk"
    folder.mkdir()
    keep_all = "--config.checkpoint.keep=1000"
    assert_full(trainer(folder, keep_all, prefix=small_disk(folder, 1800)))
    left = tmp_path / "disk-was"
    saved, kept = checkpoints(left), rows(left)
    assert 7 < saved[-1] < steps
    assert kept[: saved[-1]] == rows(whole())[: saved[-1]]
    for step in saved:
        assert saved_digests(left, step) == saved_digests(whole(), step)


def test_a_disk_that_others_fill_ends_the_logging_with_3(trainer, steps, whole, tmp_path):
    """The rows and TensorBoard's events are what finds no room."""
    folder = tmp_path / "disk"
    folder.mkdir()
    process = trainer(
        folder, "--config.log.tensorboard=true", "--config.checkpoint.every_steps=20",
        prefix=small_disk(folder, 4000),
    )  # fmt: skip
    inside = Path(f"/proc/{process.pid}/root{folder}")
    wait(process, lambda: 20 in checkpoints(inside))
    with contextlib.suppress(OSError), open(inside / "ballast", "wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(512))
    assert_full(process)
    left = tmp_path / "disk-was"
    kept = rows(left)
    assert 20 <= len(kept) < steps
    assert kept == rows(whole())[: len(kept)]
    assert saved_digests(left, 20)


def test_a_read_only_workdir_is_named_and_unharmed(trainer, tmp_path):
    bound = f"mount --bind '{tmp_path}' '{tmp_path}' && mount -o remount,ro,bind '{tmp_path}'"
    if subprocess.run(["unshare", "-rm", "sh", "-c", bound], capture_output=True).returncode:
        pytest.skip("may not mount a disk here")
    process = trainer(tmp_path, prefix=["unshare", "-rm", "sh", "-c", f'{bound}; exec "$@"', "sh"])
    status, _, line = ended(process)
    assert status == 2
    assert line == f"--workdir={tmp_path}: cannot be written (Read-only file system)"
    assert not list(tmp_path.iterdir())


def test_names_that_are_not_utf_8_are_shown_with_replacement_characters(
    tmp_path, monkeypatch, capsys
):
    """Of images, of classes and of their folder: in the run's files and on every page."""
    images, run = tmp_path / os.fsdecode(b"\xe9"), tmp_path / "run"
    rng = np.random.default_rng(0)
    for number in range(30):
        path = images / os.fsdecode((b"caf\xe9", b"dog")[number % 2] + b"/\xe9%d.png" % number)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 10, 3), np.uint8)).save(path)
    data = ["--config.data.name=folder", f"--config.data.dir={images}"]
    flags = [*TINY, *data, "--config.eval.batch_size=8", "--config.train.steps=2"]
    more = ["--config.log.tensorboard=true", f"--workdir={run}"]
    assert status_of(preview.main, *flags, f"--html={tmp_path / 'preview.html'}") == 0
    assert status_of(train.main, *flags, *more) == 0
    assert status_of(report.main, run) == 0
    assert status_of(evaluation.main, "--config=eval/embed", f"--run={run}", *data) == 0
    query, page = next((images / "dog").iterdir()), tmp_path / "search.html"
    assert status_of(search.main, f"--run={run}", query, f"--html={page}") == 0
    written = [tmp_path / "preview.html", run / "report.html", page]
    if importlib.util.find_spec("torch"):
        from simclr_jax.weights import simclr_torch

        monkeypatch.setitem(simclr_torch.BLOCKS, 10, (False, (1, 1, 1, 1)))
        export = ["export", f"--run={run}", "--format=huggingface", f"--to={tmp_path / 'card'}"]
        assert status_of(convert.main, *export) == 0
        written.append(tmp_path / "card/README.md")
    written += run.rglob("metadata.tsv")
    assert len(written) >= 4
    for path in written:
        assert "caf\ufffd" in path.read_text(encoding="utf-8"), path
