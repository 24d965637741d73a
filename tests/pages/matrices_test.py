"""A confusion matrix: counts in their places, names for few classes, a list of what is confused."""

import numpy as np
import pytest

from simclr_jax.pages import matrices


def names(count):
    return [f"class {k}" for k in range(count)]


@pytest.mark.parametrize("classes", [2, 10, 100])
def test_every_count_has_a_cell_in_the_row_of_its_class(classes):
    counts = np.zeros((classes, classes), int)
    counts[1, 0], counts[1, 1] = 3, 1
    found = matrices.drawn(counts, names(classes), note="")
    wrong, right = found["cells"]
    assert wrong["y"] == right["y"]
    assert wrong["x"] < right["x"]
    assert wrong["opacity"] > right["opacity"]
    assert wrong["text"] == "class 1 taken for class 0: 3 of 4 (75%)"
    last = found["corner"][0] + found["side"], found["corner"][1] + found["side"]
    assert last[0] <= found["size"][0]
    assert last[1] <= found["size"][1]
    assert found["counted"] == (classes <= matrices.NAMED) == bool(found["rows"])


def test_a_class_without_images_has_no_share():
    found = matrices.drawn(np.array([[1, 0], [0, 0]]), names(2), note="")
    assert len(found["cells"]) == 1


def test_long_names_are_shortened_and_slanted():
    found = matrices.drawn(np.eye(2, dtype=int), ["a" * 40, "b"], note="")
    assert found["slanted"]
    assert found["rows"][0][2] == "a" * 13 + "…"


def test_pairs_are_listed_by_their_number_and_right_ones_are_not():
    counts = np.array([[9, 1, 0], [0, 9, 4], [0, 0, 9]])
    found = matrices.confused(counts, ["a", "b", "c"], 10)
    assert found == [["b", "c", "4", "31%"], ["a", "b", "1", "10%"]]
