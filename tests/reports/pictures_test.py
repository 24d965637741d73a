"""The pictures of a report: which images, what their neighbours say, and a map of them."""

import dataclasses
import importlib.util

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from simclr_jax.config import overrides
from simclr_jax.errors import UserError
from simclr_jax.evals import task
from simclr_jax.pages import html
from simclr_jax.reports import neighbours, pictures, runs, sections


@pytest.fixture(scope="module")
def network(unevaluated):
    (run,) = runs.read([str(unevaluated)])
    return pictures.newest(run)


@pytest.fixture(scope="module")
def sample(network):
    return pictures.sample(network, 40)


@pytest.fixture
def in_folder(network, tmp_path, rng):
    """A function from {name: shape of an image, or bytes} to the network with a folder of them."""

    def of(files, **data):
        for name, content in files.items():
            path = tmp_path / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, bytes):
                path.write_bytes(content)
            else:
                Image.fromarray(rng.integers(0, 256, content, np.uint8)).save(path)
        keys = {"name": "folder", "dir": str(tmp_path / "images"), "held_out": 0.5, **data}
        changed = {f"data.{key}": value for key, value in keys.items()}
        return network._replace(config=overrides.changed(network.config, changed))

    return of


def test_the_newest_checkpoint_is_taken(network):
    assert network.step == 8


def test_images_are_evenly_spaced_in_the_evaluation_split(sample):
    rows = [int(name.rpartition("/")[2]) for name in sample.names]
    assert len(rows) == 40
    assert max(np.diff(rows)) - min(np.diff(rows)) <= 1
    assert sample.about == (
        "Of checkpoint 8, with 40, evenly spaced, of the 360 images of 'test' of digits."
    )


def test_features_and_labels_are_those_of_the_evaluation(network, sample):
    config = overrides.load(["--config=eval/knn"])
    everything = task.Task(ConfigDict(config), network, None)
    expected = everything.features(everything.test)
    rows = [int(name.rpartition("/")[2]) for name in sample.names]
    np.testing.assert_array_equal(sample.labels, expected.labels[rows])
    np.testing.assert_allclose(sample.x, expected.x[rows], atol=1e-5)


def test_more_images_than_there_are_is_all_of_them(in_folder):
    found = pictures.sample(in_folder({f"{k}.png": (9, 9, 3) for k in range(40)}), 1000)
    assert "with all of the 20 images" in found.about
    assert found.classes == []
    assert set(found.labels) == {-1}


def test_unreadable_images_are_left_out_and_counted(in_folder):
    files = {f"a/{k}.png": (9, 9, 3) for k in range(20)} | {"b/0.png": (9, 9, 3)}
    broken = {f"b/{k}.png": b"\x89PNG\r\n\x1a\nno more" for k in range(1, 20)}
    found = pictures.sample(in_folder(files | broken), 1000)
    lost = 20 - len(found.names)
    assert lost > 3
    assert f"; {lost} of them cannot be read and are left out." in found.about
    assert len(found.pictures) == len(found.labels) == len(found.x) == len(found.names)


def test_images_that_have_moved_are_found_where_they_are(in_folder, tmp_path):
    moved = in_folder({f"{k}.png": (9, 9, 3) for k in range(8)}, dir="/gone")
    found = pictures.sample(moved, 1000, directory=str(tmp_path / "images"))
    assert len(found.names) == 4


def test_fewer_than_two_images_are_refused(in_folder):
    with pytest.raises(UserError, match="it needs two"):
        pictures.sample(in_folder({f"{k}.png": (9, 9, 3) for k in range(2)}), 1000)


def test_failures_are_images_whose_neighbours_are_of_another_class(sample):
    counts, failures = pictures.judged(sample)
    assert counts.sum() == 40
    assert counts.sum() - counts.trace() == len(failures) > 0
    shares = [failure.share for failure in failures]
    assert shares == sorted(shares, reverse=True)
    for failure in failures:
        assert sample.labels[failure.misled_by] == failure.taken_for != sample.labels[failure.image]
        assert failure.misled_by in sample.nearest.rows[failure.image]


def of_classes(sample, rng, counts):
    """A sample of images of classes whose features are far apart; counts: how many of each."""
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    x = np.eye(len(counts), 16, dtype=np.float32)[labels]
    x = x + rng.normal(0, 0.05, x.shape).astype(np.float32)
    return sample._replace(
        names=[f"{row}.png" for row in range(len(x))],
        pictures=[np.zeros((8, 8, 3), np.uint8)] * len(x),
        labels=labels, classes=[f"class {row}" for row in range(len(counts))], x=x,
        nearest=neighbours.nearest(x, pictures.VOTERS),
    )  # fmt: skip


@pytest.mark.parametrize("counts", [(8, 5, 4, 3), (30, 5, 3, 3)])
def test_few_images_of_clear_classes_are_all_right(sample, rng, counts):
    """With 20 voters the largest class outvotes the others."""
    few = of_classes(sample, rng, counts)
    confused, failures = pictures.judged(few)
    assert confused.tolist() == np.diag(counts).tolist()
    assert failures == []
    note = sections.of_pictures(few, by="pca")["pictures"]["matrix"]["note"]
    k, count = max(1, (sum(counts) - 1) // 10), sum(counts)
    by = f"votes of the {k} nearest of the others (temperature 0.1)"
    by = by if k > 1 else "class of the nearest other one"
    assert note.startswith(
        f"Of {count} images with labels, by the {by}, since 20 would be too many of {count}: "
        "100.0% are right."
    )


def test_images_that_are_alone_in_their_class_are_counted(sample, rng):
    found = sections.of_pictures(of_classes(sample, rng, (9, 6, 1, 1)), by="pca")["pictures"]
    assert "88.2% are right. 2 are the only ones of their classes, and" in found["matrix"]["note"]


def test_nine_images_are_too_few_to_be_judged(sample, rng):
    found = sections.of_pictures(of_classes(sample, rng, (5, 4)), by="pca")["pictures"]
    assert found["matrix"] is None
    assert found["unjudged"] == found["failures_note"]
    assert found["unjudged"].startswith("There are 9 images, too few to judge each by the others")


def test_queries_are_of_different_classes(sample):
    found = pictures.queries(sample)
    assert len(found) == pictures.QUERIES == len({int(sample.labels[row]) for row in found})
    unlabelled = sample._replace(labels=np.full(40, -1), classes=[])
    assert pictures.queries(unlabelled) == [0, 6, 11, 17, 22, 28, 33, 39]


def test_images_without_labels_have_neighbours_and_a_map_alone(sample):
    unlabelled = sample._replace(labels=np.full(40, -1), classes=[])
    found = sections.of_pictures(unlabelled, by="pca")["pictures"]
    assert len(found["neighbours"]) == pictures.QUERIES
    assert len(found["map"]["dots"]) == 40
    assert found["matrix"] is None
    assert found["unjudged"].startswith("The images have no labels")


def test_images_of_one_class_are_not_judged(sample):
    found = sections.of_pictures(sample._replace(labels=np.zeros(40, int)), by="pca")["pictures"]
    assert found["failures"] == []
    assert found["failures_note"].startswith("The images have one class only")


def test_labels_that_are_far_apart_judge_nothing(sample):
    labels = np.full(40, -1)
    labels[0], others = 0, {*sample.nearest.rows[0].tolist()}
    far = next(k for k in range(1, 40) if k not in others and 0 not in sample.nearest.rows[k])
    labels[far] = 1
    found = sections.of_pictures(sample._replace(labels=labels), by="pca")["pictures"]
    assert found["matrix"] is None
    assert found["unjudged"].startswith("Images with labels have no others with labels near them")


def test_two_images_are_enough(sample):
    two = sample._replace(
        **{name: getattr(sample, name)[:2] for name in ("names", "pictures", "labels", "x")},
        nearest=neighbours.nearest(sample.x[:2], 20),
    )
    found = sections.of_pictures(two, by="pca")["pictures"]
    assert [len(row) for row in found["neighbours"]] == [2, 2]


@pytest.mark.parametrize("shape", [(8, 8, 3), (30, 200, 3), (500, 20, 3), (64, 64, 3)])
def test_pictures_fit(rng, shape):
    image = rng.integers(0, 256, shape, np.uint8)
    assert max(html.reduced(image, 96).shape[:2]) == min(96, max(shape[:2]))
    assert pictures.square(image, 64).shape == (64, 64, 3)


def test_a_small_image_is_enlarged_pixel_by_pixel(rng):
    image = rng.integers(0, 256, (8, 8, 3), np.uint8)
    np.testing.assert_array_equal(pictures.square(image, 64)[4::8, 4::8], image)


def test_filters_are_the_first_kernel_with_grey_for_0(network):
    kernel = np.asarray(network.variables["params"]["encoder"]["stem_conv"]["kernel"])
    found = pictures.filters(network)
    assert len(found) == kernel.shape[-1]
    assert found[0].shape == kernel.shape[:3]
    brightest = np.unravel_index(np.abs(kernel[..., 0]).argmax(), kernel.shape[:3])
    assert found[0][brightest] in (0, 255)
    scaled = kernel[..., 0] / np.abs(kernel[..., 0]).max()
    np.testing.assert_allclose(found[0], 127.5 + 127.5 * scaled, atol=0.51)


@pytest.mark.skipif(importlib.util.find_spec("umap") is None, reason="umap-learn is not installed")
@pytest.mark.slow
def test_a_map_by_umap_is_the_same_again(rng):
    x = rng.normal(size=(30, 8)).astype(np.float32)
    places, told = pictures.mapped(x, "umap")
    assert places.shape == (30, 2)
    assert told.startswith("UMAP of the features, 15 neighbours")
    np.testing.assert_array_equal(pictures.mapped(x, "umap")[0], places)


def test_a_run_without_checkpoints_has_no_network(run):
    with pytest.raises(UserError, match="has no checkpoint yet"):
        pictures.newest(dataclasses.replace(run, root=run.root / "nowhere"))


def test_images_that_no_label_is_near_are_counted_beside_the_matrix(sample, rng):
    """Of 110 images 22 have labels: twenty near each other, and two far from any other label."""
    many = of_classes(sample, rng, (30, 40, 40))
    labels = np.full(110, -1, np.int32)
    labels[:10], labels[10:20], labels[[30, 70]] = 0, 1, 2
    found = sections.of_pictures(many._replace(labels=labels), by="pca")["pictures"]
    note = found["matrix"]["note"]
    assert note.startswith("Of 20 images with labels, by the ")
    assert " 2 more, without a label among those neighbours, are left out. " in note
