"""A run's steps come out again to the bit, and a bit that has changed is found."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from simclr_jax import mesh as meshes
from simclr_jax import train, verify
from simclr_jax.errors import UserError
from simclr_jax.run import replay
from simclr_jax.run.replay import Span, find_span
from support.damage import flip_a_bit
from support.runs import SMALL, changed_at, status_of


@pytest.mark.parametrize(
    ("saved", "logged", "step", "steps", "expected"),
    [
        ([4, 8], 8, None, None, Span(5, 8, (8,))),
        ([4, 8], 10, None, None, Span(5, 8, (8,))),
        ([8], 8, None, None, Span(1, 8, (8,))),
        ([], 6, None, None, Span(1, 6, ())),
        ([4, 8], 8, 3, None, Span(3, 4, (4,))),
        ([4, 8], 8, 4, None, Span(4, 4, (4,))),
        ([4, 8], 8, 4, 2, Span(4, 5, (4,))),
        ([4, 8], 8, 2, 7, Span(2, 8, (4, 8))),
        ([4, 8], 10, 9, None, Span(9, 10, ())),
        ([4, 8], 8, None, 1, Span(5, 5, ())),
    ],
)
def test_the_steps_to_check_are_those_up_to_the_next_checkpoint(
    saved, logged, step, steps, expected
):
    assert find_span("RUN", saved, logged, step, steps) == expected


@pytest.mark.parametrize(
    ("saved", "logged", "step", "steps", "said"),
    [
        ([], 0, None, None, "--run=RUN: has no step yet"),
        ([4, 8], 8, 9, None, "--step=9: RUN has steps 1 to 8"),
        ([4, 8], 8, 0, None, "--step=0: RUN has steps 1 to 8"),
        ([4, 8], 8, 5, 5, "--steps=5: must be 1 to 4, from step 5 on"),
        ([4, 8], 8, 5, 0, "--steps=0: must be 1 to 4"),
    ],
)
def test_steps_that_the_run_does_not_have_are_refused(saved, logged, step, steps, said):
    with pytest.raises(UserError) as error:
        find_span("RUN", saved, logged, step, steps)
    assert str(error.value).startswith(said)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Forty photographs without a check sum."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for number in range(40):
        path = folder / ("cat", "dog")[number % 2] / f"{number}.bmp"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 10, 3), np.uint8)).save(path)
    return folder


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    """A run of nine steps, saved at 3, 6 and 9, evaluated at 4 and 8 and 9."""
    workdir = tmp_path_factory.mktemp("runs") / "run"
    flags = [
        "--config=folder", f"--config.data.dir={images}", *SMALL, "--config.train.steps=9",
        "--config.checkpoint.every_steps=3", "--config.eval.every_steps=4",
        "--config.eval.batch_size=16",
    ]  # fmt: skip
    assert status_of(train.main, *flags, f"--workdir={workdir}") == 0
    return workdir


def replayed(capsys, run, *flags):
    """The exit status, what was printed, and the last line on stderr."""
    status = status_of(verify.main, f"--run={run}", *flags)
    out, err = capsys.readouterr()
    return status, out.splitlines(), (err.splitlines() or [""])[-1]


@pytest.mark.slow
def test_a_run_comes_out_again_to_the_bit_and_is_left_as_it_was(run, capsys):
    before = changed_at(run)
    status, out, err = replayed(capsys, run)
    assert status == 0
    assert err.startswith("eval_knn takes the votes of the 3 nearest of 36 training images")
    assert out[0] == "steps 7 to 9 from checkpoint 6, to be compared bit for bit"
    verdict = "verdict: the rows of steps {}, checkpoint {} are what config and seed lead to, bit "
    assert out[-1].startswith(verdict.format("7 to 9", 9))
    status, out, _ = replayed(capsys, run, "--step=3", "--steps=3")
    assert status == 0
    assert out[0].startswith("steps 1 to 5 from the state of seed 0")
    assert "the rows of steps 1 to 5, checkpoint 3 are" in out[-1]
    assert changed_at(run) == before


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


@pytest.mark.slow
def test_where_older_checkpoints_are_pruned_or_damaged_it_begins_before_them(copy, capsys):
    shutil.rmtree(copy / "checkpoints/3")
    for path in (copy / "checkpoints/6").rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            flip_a_bit(path)
    status, out, _ = replayed(capsys, copy)
    assert status == 0
    assert out[0].startswith("steps 1 to 9 from the state of seed 0")


@pytest.mark.slow
def test_a_bit_in_a_row_is_found(copy, capsys):
    path = copy / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[7]["grad_norm"] = float(np.nextafter(rows[7]["grad_norm"], np.inf))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, _, line = replayed(capsys, copy)
    assert status == 1
    assert line.startswith("step 8: grad_norm is ")
    assert replayed(capsys, copy, "--step=4")[0] == 0


@pytest.mark.slow
def test_a_byte_in_an_image_is_found(run, images, tmp_path, capsys):
    """It is in the first batch, which is that of every image but some."""
    moved = shutil.copytree(images, tmp_path / "images")
    flag = f"--data_dir={moved}"
    assert replayed(capsys, run, "--step=1", flag)[0] == 0
    for path in moved.rglob("*.bmp"):
        content = bytearray(path.read_bytes())
        content[-100] ^= 64
        path.write_bytes(content)
        break
    status, out, line = replayed(capsys, run, "--step=1", "--steps=9", flag)
    assert status == 1
    assert out[1].startswith("the images are not the run's; changed are the content")
    assert line.startswith("step ")
    assert "in metrics.jsonl, and" in line
    path.unlink()
    status, _, line = replayed(capsys, run, flag)
    assert status == 2
    assert "config.data.dir=" in line


@pytest.mark.slow
def test_a_bit_in_the_checkpoint_itself_is_found(copy, capsys):
    for path in (copy / "checkpoints/9").rglob("*"):
        if path.is_file() and path.stat().st_size > 1000:
            flip_a_bit(path)
    status, _, line = replayed(capsys, copy)
    assert status == 1
    assert "checkpoints/9: is damaged" in line
    shutil.rmtree(copy / "checkpoints/9")
    shutil.copytree(copy / "checkpoints/6", copy / "checkpoints/8")
    status, _, line = replayed(capsys, copy, "--step=7")
    assert status == 1
    assert "checkpoint 6 under another number" in line


@pytest.mark.slow
def test_on_other_hardware_it_comes_out_to_rounding(copy, mesh1, monkeypatch, capsys):
    monkeypatch.setattr(replay, "_other_conditions", lambda *_: ["devices was 8 and is 1"])
    status, out, _ = replayed(capsys, copy)
    assert status == 0
    assert out[-1].endswith("lead to, and even bit for bit")
    monkeypatch.setattr(meshes, "make", lambda: mesh1)
    status, out, _ = replayed(capsys, copy)
    assert status == 0
    assert out[0].endswith("to be compared to rounding, since devices was 8 and is 1")
    assert out[-1].endswith("lead to, to what rounding makes on this hardware")
    path = copy / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[7]["contrastive_loss"] *= 1.5
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    status, _, line = replayed(capsys, copy)
    assert status == 1
    assert line.startswith("step 8: contrastive_loss is ")
