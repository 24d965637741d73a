"""What plan makes of the compiler's numbers, with a compiler that answers at once."""

import json
import stat

import pytest

from simclr_jax import plan
from simclr_jax.config import overrides
from support.plans import MEASURED
from support.runs import status_of

IMAGENET = "--config=imagenet"


def run(capsys, *flags):
    status = status_of(plan.main, *flags)
    printed = capsys.readouterr()
    return status, printed.out, printed.err.strip().splitlines()


def test_a_plan_is_printed_and_written_with_the_documented_keys(compiler, capsys, tmp_path):
    path = tmp_path / "plan.json"
    status, out, err = run(
        capsys, IMAGENET, "--topology=v5e:4x8", f"--json={path}", "--host_views_per_second=3000"
    )
    assert (status, err) == (0, [])
    planned = json.loads(path.read_text())
    assert {
        "chips", "chip", "flops_per_chip", "analytic_flops_per_chip", "hbm_bytes_per_chip",
        "memory_per_chip", "collectives", "step_seconds", "bound_by", "images_per_second", "hours",
        "host_views_per_second_needed",
    } <= set(planned)  # fmt: skip
    assert set(planned["memory_per_chip"]) == {
        "params", "optimizer", "activations", "images", "total", "available",
    }  # fmt: skip
    # 80 GB at 819 GB/s take longer than 6.2 TFLOP at 197 TFLOP/s
    assert planned["bound_by"] == "memory"
    assert planned["step_seconds"] == pytest.approx(80 / 819)
    assert planned["hours"] == pytest.approx(31279 * 80 / 819 / 3600)
    needed = 2 * 4096 / (80 / 819) / 8
    assert planned["host_views_per_second_needed"] == pytest.approx(needed)
    assert f"{needed / 3000:.1f}x too slow" in out
    assert "bound by memory" in out
    assert f"h: {planned['hours'] * 32:.2f} chip-hours" in out
    assert out.splitlines()[-1].startswith("next: ACCELERATOR=v5litepod-32 launch/tpu.sh create")
    # 4096 images a step of 97.7 ms on 8 hosts
    assert "storage       disk: 5,2" in out
    assert "bucket: 5,2" in out


def test_arithmetic_above_the_analytic_count_is_explained(compiler, capsys, monkeypatch):
    monkeypatch.setitem(MEASURED, "flops", 6.2e12 * 4 / 3)
    flags = [IMAGENET, "--topology=v5e:4x8", "--host_views_per_second=1"]
    for key in ("train.microbatches=2", "model.remat=block"):
        _, out, _ = run(capsys, *flags, f"--config.{key}")
        assert "1.333 of the analytic count" in out
        assert key.split(".")[1].split("=")[0] in out


def test_a_batch_that_does_not_fit_is_refused_with_what_it_needs(compiler, capsys):
    flags = [IMAGENET, "--topology=v5e:4x8", "--config.train.batch_size=8192"]
    status, _, (line,) = run(capsys, *flags)
    assert status == 2
    assert "config.train.batch_size=8192" in line
    assert "19.00 of a chip's 15.75 GiB" in line


def test_find_batch_ends_near_the_limit_in_few_compilations(compiler, capsys):
    """9 GiB a 4,096 images and 1 GiB besides: 6,712 fit; 32 chips leave multiples of 32."""
    flags = [IMAGENET, "--topology=v5e:4x8", "--find_batch", "--host_views_per_second=1"]
    status, out, _ = run(capsys, *flags)
    assert status == 0
    batch = int(out.split("batch ")[-1].split()[0])
    assert 6712 * 15 / 16 < batch <= 6712
    assert batch % 32 == 0
    assert len(compiler) <= 5


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--topology: required"),
        (["--topology=v9:2x2"], "--topology=v9:2x2: must be CHIP:SHAPE"),
        (["--topology=v5e"], "--topology=v5e: must be"),
        (["--topology=v5e:3x3"], "--topology=v5e:3x3: must be CHIP:SHAPE"),
        (["--topology=v5e:4x6"], "config.train.batch_size=4096: must be a multiple of the 24"),
        (["--topology=v5e:0x4"], "--topology=v5e:0x4: must be"),
        (["--topology=v5e:2x2", "--config.model.remat=all"], "config.model.remat='all'"),
    ],
)
def test_bad_input_is_refused(compiler, capsys, flags, said):
    status, _, (line,) = run(capsys, IMAGENET, *flags)
    assert status == 2
    assert said in line
    assert compiler == []


def test_a_crash_of_the_compiler_is_a_line(monkeypatch, capsys, tmp_path):
    crashing = tmp_path / "python"
    lines = "ValueError: no matter", "F1127 1 a.cc:1] Check failed", "*** stack", "    @ Error()"
    said = "".join(f"echo '{line}' >&2\n" for line in lines)
    crashing.write_text(f"#!/bin/sh\n{said}kill -ABRT $$\n")
    crashing.chmod(crashing.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setattr(plan.sys, "executable", str(crashing))
    monkeypatch.setattr(plan.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(plan.metadata, "version", lambda name: f"{name}'s")
    status, _, (line,) = run(capsys, IMAGENET, "--topology=v5e:2x2")
    assert status == 3
    assert line.endswith("libtpu libtpu's crashed: F1127 1 a.cc:1] Check failed")


def test_this_machines_views_are_counted(monkeypatch):
    monkeypatch.setattr(plan, "MEASURED_SECONDS", 0.1)
    config = overrides.load([IMAGENET, "--config.data.image_size=32"])
    assert plan.measure_views(config) > 0
