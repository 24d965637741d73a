"""Runs launch/tpu.sh with a gcloud whose TPU is a folder; conftest.py makes the fixtures known."""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import pytest

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="workers are Linux machines")

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
SUPPORT = pathlib.Path(__file__).parent
# Arguments that a shell changes unless they are quoted with care.
NASTY = ["--config=a b", "it's", 'say "x"', "$HOME;`id`", "*", "", "line\nbreak", "é\\n", "a  b"]
# What tpu.sh finds on its PATH besides gcloud, and what is replaced on the workers.
TOOLS = """bash cat cp date dirname env git grep mkdir mktemp readlink rm sed sh sleep sort tail tee
wc"""
WORKER_TOOLS = "python3 python3.11 python3.12 python3.13 mountpoint gcsfuse sudo"


def git(folder, *arguments):
    who = ["-c", "user.name=n", "-c", "user.email=e@example.com", "-c", "commit.gpgsign=false"]
    command = ["git", *who, "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture(scope="session")
def checkout(tmp_path_factory):
    """A repository that has launch/ and two commits, pushed to its origin."""
    folder = tmp_path_factory.mktemp("code")
    origin, checkout = folder / "origin.git", folder / "it's a checkout"
    git(folder, "init", "--quiet", "--bare", str(origin))
    git(folder, "init", "--quiet", str(checkout))
    git(checkout, "remote", "add", "origin", str(origin))
    for version in ("1", "2"):
        shutil.copytree(LAUNCH, checkout / "launch", dirs_exist_ok=True)
        (checkout / "version").write_text(version)
        git(checkout, "add", ".")
        git(checkout, "commit", "--quiet", "-m", version)
    git(checkout, "push", "--quiet", "origin", "HEAD")
    return checkout


class Cloud:
    """Runs launch/tpu.sh of `checkout` where gcloud keeps its state in `folder`."""

    def __init__(self, folder, checkout):
        self.folder, self.checkout, self.processes = folder, checkout, []
        self.revision = git(checkout, "rev-parse", "HEAD")
        for name in ("bin", "path", "plan", "home"):
            (folder / name).mkdir()
        for name in WORKER_TOOLS.split():
            (folder / "bin" / name).symlink_to(SUPPORT / "fake_worker")
        for tool in TOOLS.split():  # PATH has nothing else, so that no real gcloud is found.
            (folder / "path" / tool).symlink_to(shutil.which(tool))
        # With -I -S, Python ignores the environment and starts twice as fast.
        gcloud = f'#!/bin/sh\nexec "{sys.executable}" -I -S "{SUPPORT}/fake_gcloud" "$@"\n'
        (folder / "path" / "gcloud").write_text(gcloud)
        (folder / "path" / "gcloud").chmod(0o755)
        self.settings = {
            "PATH": str(folder / "path"),
            "HOME": str(folder / "home"),
            "FAKE": str(folder),
            "REAL_PYTHON": sys.executable,
            "ZONE": "us-west4-a",
            "NAME": "pod",
            "WORKDIR": "gs://bucket/run",
            "RETRY_SECONDS": "0",
            "POLL_SECONDS": "0",
            "MAX_RETRIES": "3",
        }

    def start(self, *arguments, script=None, **settings):
        process = subprocess.Popen(
            [script or self.checkout / "launch" / "tpu.sh", *arguments],
            env=self.settings | settings, cwd=self.folder, text=True, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def run(self, *arguments, **settings):
        process = self.start(*arguments, **settings)
        out, err = process.communicate(timeout=180)
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def plan(self, kind, *answers):
        (self.folder / "plan" / kind).write_text("".join(f"{answer}\n" for answer in answers))

    def outcomes(self, *lines):
        (self.folder / "outcomes").write_text("".join(f"{line}\n" for line in lines))

    def calls(self, *verbs):
        calls = self.folder / "calls"
        lines = calls.read_text().splitlines() if calls.exists() else []
        return [call for call in map(json.loads, lines) if not verbs or {*call[3:5]} & {*verbs}]

    def worker(self, k, name):
        return (self.folder / "workers" / str(k) / name).read_text()

    def arguments(self, k):
        return self.worker(k, "arguments").split("\0")[:-1]


@pytest.fixture
def cloud(tmp_path, checkout):
    cloud = Cloud(tmp_path, checkout)
    yield cloud
    for process in cloud.processes:
        if process.poll() is None:  # The test has failed before it ended.
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    for pid in tmp_path.glob("workers/*/simclr_run/*"):
        if pid.name in ("pid", "child"):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid.read_text()), signal.SIGKILL)


@pytest.fixture(scope="session")
def prepared(tmp_path_factory, checkout):
    """The folder of a TPU that is there and set up."""
    cloud = Cloud(tmp_path_factory.mktemp("prepared"), checkout)
    assert cloud.run("create").returncode == 0
    assert cloud.run("setup").returncode == 0
    return cloud.folder


@pytest.fixture
def ready(cloud, prepared):
    """A TPU that is there and set up."""
    shutil.copytree(prepared / "workers", cloud.folder / "workers", symlinks=True)
    shutil.copy(prepared / "node", cloud.folder / "node")
    return cloud


def one_line(result):
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def wait_for(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "waited too long"
        time.sleep(0.02)
