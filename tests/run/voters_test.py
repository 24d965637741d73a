"""The votes of training images while training, against the evaluation by nearest neighbours."""

from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

from simclr_jax.config import overrides
from simclr_jax.data.readable import Readable
from simclr_jax.data.synthetic import Photos
from simclr_jax.evals import knn
from simclr_jax.evals.features import Features
from simclr_jax.losses import neighbours
from simclr_jax.run import voters

CLASSES, BATCH = 5, 8


def network():
    """A stand-in whose representations are an image's pixels."""

    def apply(variables, images, train):
        assert not train
        return SimpleNamespace(h=images.reshape(len(images), -1))

    return SimpleNamespace(apply=apply)


def batches(images, labels, mask):
    for start in range(0, len(images), BATCH):
        rows = slice(start, start + BATCH)
        yield {"image": images[rows], "label": labels[rows], "mask": mask[rows]}


def test_they_vote_as_the_evaluation_by_neighbours_does_and_masked_ones_have_no_part(rng, mesh8):
    images = rng.normal(size=(24, 1, 2, 3)).astype(np.float32)
    labels = rng.integers(-1, CLASSES, 24).astype(np.int32)
    mask = np.arange(24) % 5 > 0
    voting = voters.Voters(
        model=network(), mesh=mesh8, images=lambda: batches(images, labels, mask), classes=CLASSES
    )
    x, known = voting.known({}, lambda: False)
    kept = mask & (labels >= 0)
    np.testing.assert_array_equal(x, images.reshape(24, -1)[kept])
    np.testing.assert_array_equal(known, labels[kept])

    asked = rng.normal(size=(BATCH, 6)).astype(np.float32)
    counted = np.arange(BATCH) != 3
    ((votes,),) = knn.votes(
        Features(x, known), asked, classes=CLASSES, ks=[voters.nearest_of(len(known))],
        temperature=neighbours.TEMPERATURE, mesh=mesh8,
    )  # fmt: skip
    truth = votes.argmax(axis=1).astype(np.int32)
    assert len({*truth}) > 1
    truth[0], truth[1] = (truth[0] + 1) % CLASSES, -1
    assert voting.right(asked, truth, counted, (x, known)) == BATCH - 3
    assert voting.right(asked, truth, counted, (x[:0], known[:0])) == 0


def test_of_few_voters_a_tenth_votes_and_that_is_said_once(mesh8, capsys):
    """Where all of them vote, the class of most of them wins, whatever is near."""
    labels = np.repeat(np.arange(3), (24, 16, 8)).astype(np.int32)
    images = np.eye(3, 6, dtype=np.float32)[labels].reshape(-1, 1, 2, 3)
    mask = np.ones(48, bool)
    voting = voters.Voters(
        model=network(), mesh=mesh8, images=lambda: batches(images, labels, mask), classes=CLASSES
    )
    for _ in range(2):
        known = voting.known({}, lambda: False)
    said = "eval_knn takes the votes of the 4 nearest of 48 training images"
    assert capsys.readouterr().err.count(said) == 1
    # The largest class is nearly as near as the true one.
    asked = np.float32([[0.95, 1, 0, 0, 0, 0], [0.95, 0, 1, 0, 0, 0]] * 4)
    truth = np.int32([1, 2] * 4)
    assert voting.right(asked, truth, np.ones(8, bool), known) == 8


def test_with_enough_voters_it_is_200_whatever_their_number():
    assert [voters.nearest_of(count) for count in (400, 4096, 399, 5)] == [200, 200, 39, 1]


def test_it_gives_up_when_it_is_told_to(mesh8):
    images = partial(batches, np.zeros((8, 1, 2, 3)), np.zeros(8, np.int32), np.ones(8, bool))
    voting = voters.Voters(model=network(), mesh=mesh8, images=images, classes=CLASSES)
    assert voting.known({}, lambda: True) is None


class Labelled(Photos):
    """Photographs of which every fourth has a label."""

    def labels(self):
        return np.where(np.arange(len(self)) % 4, np.int32(-1), 0)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, [0, 20, 40]),
        ({"data.label_fraction": 0.25}, [0, 20, 40]),
        ({"data.label_fraction": 0.25, "eval.knn_images": 4}, [0, 12, 28, 40]),
        ({"eval.knn_images": 4}, [0, 13, 27, 40]),
        ({"eval.knn_images": 0}, None),
    ],
)
def test_they_are_evenly_chosen_among_those_whose_label_is_seen(mesh8, keys, expected):
    config = overrides.changed(overrides.load(["--config=digits"]), {"eval.knn_images": 3, **keys})
    source = Readable(Labelled(41, width=8, height=8), on_bad_image="error")
    asked = []

    def images(source, order):
        asked.append(order.tolist())
        return iter(())

    others = {"model": network(), "mesh": mesh8, "images": images}
    found = voters.voters(config, source, source, **others)
    if expected is None:
        assert found is None
    else:
        found._images()
        assert asked == [expected]
    unlabelled = Readable(source.source, on_bad_image="error", labelled=False)
    for train, evaluation in ((None, source), (unlabelled, source), (source, unlabelled)):
        assert voters.voters(config, train, evaluation, **others) is None
