"""Linear classifiers that are trained side by side, on features whose answer is known."""

import jax
import numpy as np
import pytest

from simclr_jax.evals import probes, scores
from simclr_jax.evals.features import Features


def trained(features, settings, *, steps, batch_size=64):
    common = {"batch_size": batch_size, "steps": steps, "seed": 0}
    batches = probes.shuffled(features, **common)
    return probes.train(batches, settings=settings, classes=5, **common)


def test_sgd_separates_separable_features(blobs):
    train, test = blobs
    steps = probes.num_steps(num_examples=300, batch_size=64, epochs=20)
    (probe,) = trained(train, [(0.1, 0.0)], steps=steps)
    logits = probes.logits(probe.params, test.x, batch_size=40)
    assert logits.shape == (101, 5)
    assert scores.accuracies(logits, test.labels)["top1"] > 0.8
    assert probe.updates == steps
    assert not probe.diverged
    assert probe.loss < probe.guessing == pytest.approx(np.log(5))


def test_probes_side_by_side_end_where_each_ends_alone(blobs, monkeypatch):
    """One that diverges does not touch the others, and batches go to the device in any number."""
    settings = [(0.1, 0.0), (1e3, 0.1), (1.0, 0.01)]
    together = trained(blobs[0], settings, steps=130)
    assert [probe.diverged for probe in together] == [False, True, False]
    monkeypatch.setattr(probes, "SCAN_STEPS", 50)
    for setting, probe in zip(settings[::2], together[::2], strict=True):
        (alone,) = trained(blobs[0], [setting], steps=130)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), alone.params, probe.params
        )
        assert (probe.lr, probe.weight_decay) == setting


def test_one_step_is_that_of_the_formula(blobs):
    """From the gradient by hand: Nesterov's momentum makes the first step 1.9 as long."""
    x, labels = blobs[0].x[:64], blobs[0].labels[:64]
    (start,) = probes.train([Features(x, labels)], settings=[(0.0, 0.0)], classes=5, batch_size=64,
                            steps=9, seed=0)  # fmt: skip
    (probe,) = probes.train([Features(x, labels)], settings=[(0.1, 0.5)], classes=5, batch_size=64,
                            steps=9, seed=0)  # fmt: skip
    before, after = (np.asarray(each.params["dense"]["kernel"]) for each in (start, probe))
    p = np.exp(x @ before)
    p /= p.sum(axis=1, keepdims=True)
    gradient = x.T @ (p - np.eye(5)[labels]) / 64 + 0.5 * before
    np.testing.assert_allclose(after, before - 1.9 * 0.1 * 64 / 256 * gradient, atol=1e-5)


@pytest.mark.parametrize(("steps", "seen"), [(300, np.isnan), (12, np.isfinite)])
def test_a_probe_that_diverges_is_known_by_its_loss(blobs, steps, seen):
    """Whether its weights have reached infinity, or are on their way there."""
    (probe,) = trained(blobs[0], [(240.0, 0.1)], steps=steps)
    assert probe.diverged
    assert seen(probe.loss)
    assert probe.updates == min(steps, probes.SCAN_STEPS)
