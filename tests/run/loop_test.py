"""The order of the loop, on a step that counts, and what it does with numbers that diverge."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simclr_jax import mesh as meshes
from simclr_jax.config.parts import Intervals
from simclr_jax.data.order import Order
from simclr_jax.errors import DivergedError, PreemptedError
from simclr_jax.run.health import Health, Start
from simclr_jax.run.loop import Loop
from simclr_jax.run.workdir import Workdir

ORDER = Order(examples=10, batch_size=8, seed=0)


class Recorder:
    """Checkpoints and a log that note what they are told, and when they are asked to stop."""

    def __init__(self, stop_at=None):
        self.events, self.stop_at = [], stop_at
        self.heard = self.unsaved = False

    def step(self, state, batch):
        self.events.append(f"step {state + 1}")
        loss = math.nan if batch["label"][0] < 0 else 1.0
        row = {"loss": loss, "grad_norm": 1.0, "learning_rate": 0.1, "finite": loss == loss}
        return state + 1, jax.tree.map(jnp.asarray, row)

    def batches(self, bad=None):
        for number in range(1, 100):
            self.events.append(f"batch {number}")
            yield {"label": np.full(8, -1 if number == bad else 0, np.int32)}

    def evaluate(self, state, give_up):
        self.events.append(f"evaluate {state}")
        return {"eval_loss": 2.0}

    def save(self, step, state, record):
        self.events.append(f"save {step}")

    def write(self, row):
        self.events.append(f"log {row['step']}")

    def due(self, step):
        return step == self.stop_at

    def flush(self, *args):
        pass

    raise_failure = wait = remember = flush


def loop(recorder, tmp_path, mesh, *, bad=None, allowed=0):
    return Loop(
        step=recorder.step,
        batches=recorder.batches(bad),
        mesh=mesh,
        evaluate=recorder.evaluate,
        intervals=Intervals(total=4, evaluate=2, save=3, log=1),
        order=ORDER,
        name_of=lambda index: f"{index}.jpg",
        workdir=Workdir(tmp_path, {}, recorder, recorder),
        health=Health(
            start=Start.of_pairs("nt_xent", 48), patience=100, allowed=allowed, skipped=0
        ),
        preemption=recorder,
    )


def test_the_next_batch_is_sent_before_the_step_that_runs_is_waited_for(
    tmp_path, mesh8, monkeypatch
):
    """A step's metrics are its end: reading one waits for the device."""
    recorder, real = Recorder(), meshes.put

    class Metric:
        def __init__(self, step):
            self.step = step

        def __float__(self):
            recorder.events.append(f"waited {self.step}")
            return 1.0

        def is_ready(self):
            return False

    def put(batch, mesh):
        recorder.events.append("sent")
        return real(batch, mesh)

    def step(state, batch):
        recorder.events.append(f"step {state + 1}")
        row = dict.fromkeys(("grad_norm", "learning_rate", "finite"), jnp.ones(()))
        return state + 1, {"loss": Metric(state + 1), **row}

    monkeypatch.setattr(meshes, "put", put)
    monkeypatch.setattr(recorder, "step", step)
    loop(recorder, tmp_path, mesh8).train(0, 0, [])
    kept = [event for event in recorder.events if event.split()[0] in ("sent", "step", "waited")]
    assert kept == [
        "sent", "step 1",
        "sent", "step 2", "waited 1",
        "sent", "step 3", "waited 2",
        "waited 3",  # The state after it is saved.
        "sent", "step 4", "waited 4",
    ]  # fmt: skip


def test_the_order_is_evaluate_save_batch_step_log_the_previous_step(tmp_path, mesh8):
    recorder = Recorder()
    last = loop(recorder, tmp_path, mesh8).train(0, 0, [])
    assert recorder.events == [
        "batch 1", "step 1",
        "batch 2", "step 2", "log 1",
        "evaluate 2", "batch 3", "step 3", "log 2",
        "log 3", "save 3", "batch 4", "step 4",
        "evaluate 4", "log 4", "save 4",
    ]  # fmt: skip
    assert (last["step"], last["eval_loss"], last["epoch"]) == (4, 2.0, 3.2)


def test_told_to_stop_it_saves_and_says_where(tmp_path, mesh8):
    recorder = Recorder(stop_at=2)
    with pytest.raises(PreemptedError, match=f"stopped after step 2, saved in {tmp_path}"):
        loop(recorder, tmp_path, mesh8).train(0, 0, [])
    assert recorder.events[-2:] == ["log 2", "save 2"]


def test_the_images_of_a_step_that_is_not_finite_are_listed(tmp_path, mesh8):
    recorder = Recorder()
    with pytest.raises(DivergedError) as error:
        loop(recorder, tmp_path, mesh8, bad=2).train(0, 0, [])
    path = tmp_path / "nonfinite/2.json"
    assert f"its images are listed in {path}. Try a lower optim.lr" in str(error.value)
    index, _ = ORDER.batch(1)
    assert f'"name": "{index[0]}.jpg"' in path.read_text()
    assert "save 2" not in recorder.events


def test_where_the_images_cannot_be_listed_it_still_says_what_happened(tmp_path, mesh8):
    (tmp_path / "nonfinite").write_text("a file")
    with pytest.raises(DivergedError, match=r"step 2: loss is nan .* not listed \(.*File exists"):
        loop(Recorder(), tmp_path, mesh8, bad=2).train(0, 0, [])


def test_a_skipped_update_is_counted_and_its_images_are_listed(tmp_path, mesh8):
    last = loop(Recorder(), tmp_path, mesh8, bad=2, allowed=1).train(0, 0, [])
    assert (last["step"], last["skipped_updates"]) == (4, 1)
    assert (tmp_path / "nonfinite/2.json").exists()
