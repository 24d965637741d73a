"""Linear evaluation and nearest neighbours on features whose answer is known."""

import numpy as np
import pytest

from simclr_jax.evals import knn, linear, scores
from simclr_jax.evals.features import Features


@pytest.fixture
def blobs(rng):
    """(train, test): five well separated classes in 12 dimensions."""
    centres = 1.2 * rng.normal(size=(5, 12))

    def draw(n):
        labels = rng.integers(0, 5, n).astype(np.int32)
        x = centres[labels] + rng.normal(size=(n, 12))
        return Features(x.astype(np.float32), labels)

    return draw(300), draw(101)


def test_sgd_separates_separable_features(blobs):
    train, test = blobs
    steps = linear.num_steps(num_examples=300, batch_size=64, epochs=20)
    params = linear.fit(
        linear.shuffled(train, batch_size=64, steps=steps, seed=0),
        classes=5,
        learning_rate=linear.cosine(0.1, batch_size=64, steps=steps),
        weight_decay=0.0,
        seed=0,
    )
    logits = linear.logits(params, test.x, batch_size=40)
    assert logits.shape == (101, 5)
    assert scores.accuracies(logits, test.labels)["top1"] > 0.8


def test_few_labels_report_every_draw(blobs):
    train, test = blobs
    options = {"classes": 5, "per_class": 3, "draws": 4, "c": 0.1}
    results = linear.few_labels(train, test, seed=0, **options)
    assert len(results) == 4
    assert results == linear.few_labels(train, test, seed=0, **options)
    assert results != linear.few_labels(train, test, seed=1, **options)
    summary = scores.mean_and_deviation(results)
    top1 = [result["top1"] for result in results]
    assert summary["top1"] == pytest.approx(np.mean(top1))
    assert summary["top1_std"] == pytest.approx(np.std(top1))
    assert summary["top1"] > 0.5
    with pytest.raises(ValueError, match="at most"):
        linear.few_labels(train, test, seed=0, **{**options, "per_class": 200})


def test_accuracies():
    likely = np.eye(7)[[0, 1, 2, 3]] + np.linspace(0.1, 0, 7)
    assert scores.accuracies(likely, np.array([0, 1, 6, 4])) == {"top1": 0.5, "top5": 0.75}


def by_hand(train, test, k, temperature):
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (test.x, train.x)]
    votes = np.zeros((len(test.x), 5))
    for row, similarity in enumerate(unit[0] @ unit[1].T):
        weight = np.exp((similarity - similarity.max()) / temperature)
        for column in np.argsort(-similarity)[:k]:
            votes[row, train.labels[column]] += weight[column]
    return votes


@pytest.mark.parametrize("k", [1, 7, 1000])
def test_knn_equals_voting_by_hand(blobs, k):
    votes = knn.scores(*blobs, classes=5, k=k, temperature=0.2, test_rows=40, train_rows=64)
    np.testing.assert_allclose(votes, by_hand(*blobs, k, 0.2), rtol=1e-4)
