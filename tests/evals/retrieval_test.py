"""Retrieval against hand-worked rankings and scikit-learn's average precision."""

from functools import partial

import numpy as np
import pytest
from sklearn import metrics

from simclr_jax import cli
from simclr_jax import eval as evaluation
from simclr_jax.evals import retrieval
from simclr_jax.evals.features import Features
from support.runs import result, status_of

run = partial(status_of, evaluation.main, "--config=eval/retrieval")


def at_angles(degrees, labels):
    """Features of images at angles of the plane: the nearer, the more similar."""
    angle = np.deg2rad(degrees)
    x = 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1)  # of any length
    return Features(x.astype(np.float32), np.int32(labels))


def test_a_ranking_by_hand():
    """Right at the ranks 2 and 4 of 5: average precision (1/2 + 2/4) / 2; one wrong before."""
    database = at_angles([10, 20, 30, 40, 50], [1, 0, 1, 0, 1])
    precision, wrong = retrieval.evaluate(at_angles([0], [0]), database, rest=False)
    np.testing.assert_allclose(precision, [0.5])
    assert wrong.tolist() == [1]


def test_equally_similar_images_are_not_told_apart_by_their_order():
    """Four images alike, one of them right: precision 1/4 for each order of the database."""
    for place in range(4):
        labels = np.where(np.arange(4) == place, 0, 1)
        precision, wrong = retrieval.evaluate(
            at_angles([0], [0]), at_angles([30] * 4, labels), rest=False
        )
        assert (precision.tolist(), wrong.tolist()) == ([0.25], [3])
    precision, wrong = retrieval.evaluate(
        at_angles([0], [0]), at_angles([30, 30, 40], [0, 0, 1]), rest=False
    )
    assert (precision.tolist(), wrong.tolist()) == ([1.0], [0])  # alike, and both right


@pytest.mark.parametrize("rest", [False, True])
def test_every_query_has_scikit_learns_average_precision_whatever_the_blocks(blobs, rest):
    train, test = blobs
    test = Features(np.r_[test.x, test.x[:3]], np.r_[test.labels, test.labels[:3]])  # ties
    test.labels[7] = train.labels[5] = -1
    database = test if rest else train
    precision, wrong = retrieval.evaluate(test, database, rest=rest, rows=70, block=32)
    read = retrieval.evaluate(test, database, rest=rest, rows=70, block=32, held_bytes=0)
    np.testing.assert_array_equal((precision, wrong), read)
    unit = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in (test.x, database.x)]
    asked = np.flatnonzero(test.labels >= 0)
    assert len(precision) == len(asked) == 103
    for place, query in enumerate(asked):
        kept = database.labels >= 0
        kept[query] &= not rest
        scores = (unit[0][query] @ unit[1].T)[kept].round(6)
        relevant = (database.labels == test.labels[query])[kept]
        expected = metrics.average_precision_score(relevant, scores)
        assert precision[place] == pytest.approx(expected, abs=2e-6)
        assert wrong[place] == (scores[~relevant] >= scores[relevant].max()).sum()


@pytest.mark.parametrize(("held_bytes", "times"), [(None, 2), (0, 8)])
def test_the_database_goes_to_the_devices_once_where_it_fits(blobs, monkeypatch, held_bytes, times):
    """Two blocks of the database, passed twice for each of two blocks of queries."""
    train, test = blobs
    put, sent = retrieval._Database._put, []
    monkeypatch.setattr(
        "simclr_jax.evals.retrieval._Database._put",
        lambda self, places: sent.append(len(places)) or put(self, places),
    )
    options = {"rows": -(-len(train.x) // 2), "block": 64, "held_bytes": held_bytes}
    retrieval.evaluate(test, train, rest=False, **options)
    assert len(sent) == times


def test_opposite_and_orthogonal_images_are_in_order():
    """Similarities of -1, -0.5, exactly 0 from both sides, and 1."""
    database = Features(
        np.float32([[-1, 0], [-1, 3**0.5], [0, 1], [0, -1], [-0.0, 2], [3, 0]]),
        np.int32([0, 1, 0, 1, 1, 1]),
    )
    precision, wrong = retrieval.evaluate(
        Features(np.float32([[2, 0]]), np.int32([0])), database, rest=False
    )
    np.testing.assert_allclose(precision, [(1 / 4 + 2 / 6) / 2])
    assert wrong.tolist() == [3]


def test_an_image_alone_in_its_class_is_left_out():
    split = at_angles([0, 10, 90], [0, 0, 1])
    precision, _ = retrieval.evaluate(split, split, rest=True)
    assert precision.tolist() == [1.0, 1.0]


@pytest.mark.parametrize("rest", [False, True])
@pytest.mark.parametrize("labels", [([-1, -1], [0, 1]), ([0, 1], [-1, -1]), ([-1], [-1])])
def test_without_a_labelled_image_on_either_side_nothing_is_ranked(labels, rest):
    queries, database = (at_angles(range(len(each)), each) for each in labels)
    assert [len(each) for each in retrieval.evaluate(queries, database, rest=rest)] == [0, 0]


def test_the_result_has_the_documented_keys(finished, capsys):
    flags = ["--config.retrieval.against=rest", "--config.retrieval.k=1,300"]
    assert run(f"--run={finished}", *flags) == 0
    found = result(finished, "retrieval", 8, "h,digits,against=rest,k=*")
    assert (found["num_examples"], found["num_database"], found["without_relevant"]) == (
        360, 360, 0,
    )  # fmt: skip
    assert 0.1 < found["mean_average_precision"] < 1
    assert found["recall_at_1"] < found["recall_at_300"]
    assert "against the others" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        (["--config.data.num_classes=0"], "config.data.train_split='train': retrieval needs label"),
        (["--config.data.num_classes=0", "--config.retrieval.against=rest"],
         "config.data.eval_split=None: retrieval needs labels"),
        (["--config.retrieval.k=0"], "config.retrieval.k=0: must be a whole number"),
        (["--config.retrieval.against=x"], "config.retrieval.against='x': must be one of train, r"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_in_a_line(finished, capsys, flags, line):
    assert run(f"--run={finished}", *flags) == cli.USER_ERROR
    assert capsys.readouterr().err.splitlines()[-1].startswith(line)
