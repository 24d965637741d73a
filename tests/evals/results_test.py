"""Results: each has a name of what it is of, and none takes another's place."""

import json

import pytest
from etils import epath

from simclr_jax.evals import results

USUAL = {"protocol": "linear", "linear.epochs": 100.0, "linear.labels_per_class": None,
         "features.layer": "h", "features.batch_size": None, "data.name": None, "data.dir": None,
         "data.train_split": None, "seed": 0}  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "name"),
    [
        ({}, "h,digits"),
        ({"features.batch_size": 64, "protocol": "other", "data.name": "digits"}, "h,digits"),
        ({"linear.labels_per_class": 10}, "h,digits,labels_per_class=10"),
        ({"linear.rates": (0.1, 0.3)}, "h,digits,rates=0.1_0.3~"),
        ({"data.train_split": "train[:50%]"}, "h,digits,data.train_split=train_50~"),
        ({"linear.epochs": 1e-6, "seed": 7}, "h,digits,epochs=1e-06,seed=7"),
        ({"data.dir": "gs://bucket/cats"}, "h,digits,data.dir=gs_bucket_cats~"),
        ({"data.dir": "/" + "long/" * 900}, "h,digits,data.dir="),
    ],
)
def test_a_name_has_all_that_is_not_as_usual(changed, name):
    found = results.what("linear", "h", "digits", USUAL | changed, USUAL)
    assert found == name or (name[-1] in "~=" and found.startswith(name))
    assert "/" not in found
    assert len(found) < 255


def test_texts_that_look_alike_in_a_name_are_told_apart():
    def of(value):
        return results.what("linear", "h", "folder", USUAL | {"data.dir": value}, USUAL)

    ways = ["/a/b", "/a_b", "a/b", "a_b", "a b", "a*b", "/" + "x" * 90 + "1", "/" + "x" * 90 + "2"]
    assert len({of(way) for way in ways}) == len(ways)
    many = [USUAL | {f"linear.key{n}": 1 for n in range(60)} | {"linear.last": n} for n in (1, 2)]
    assert len({results.what("linear", "h", "d", values, USUAL) for values in many}) == 2


def of(**changed):
    return {
        "config": {"seed": 0, "data": {"dir": "/a"}},
        "weights": "w",
        "images": {"n": 4},
    } | changed


def put(folder, name, top1, of):
    path = results.place(folder / "knn/8", name, of)
    results.write(folder, path, {"protocol": "knn", "checkpoint_step": 8, "top1": top1, "of": of})
    return path.name


def read_rows(folder):
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def test_a_result_takes_the_place_of_one_of_the_same_things_only(tmp_path):
    folder = epath.Path(tmp_path)
    assert put(folder, "h,d", 0.1, of()) == "h,d"
    assert put(folder, "h,d", 0.2, of(images={"n": 5})) == "h,d~2"
    assert put(folder, "h,d", 0.3, of(weights="v")) == "h,d~3"
    assert put(folder, "h,d", 0.4, of(images={"n": 5})) == "h,d~2"  # Asked again.
    assert put(folder, "h,e", 0.5, of()) == "h,e"
    newer = of(config={"seed": 0, "data": {"dir": "/a"}, "new": 1})
    assert put(folder, "h,d", 0.6, newer) == "h,d"  # A later version has more keys.
    rows = results.rows(folder)
    assert {row["folder"].removeprefix("knn/8/"): row["top1"] for row in rows} == {
        "h,d": 0.6, "h,d~2": 0.4, "h,d~3": 0.3, "h,e": 0.5,
    }  # fmt: skip
    assert read_rows(folder) == rows
    assert all("of" not in row for row in rows)


def test_the_list_has_earlier_versions_results_and_outlives_damage(tmp_path):
    folder = epath.Path(tmp_path)
    earlier = {"protocol": "linear", "checkpoint_step": 4, "top1": 0.7}
    for path in ("linear/4", "linear/10", "knn/4"):
        (folder / path).mkdir(parents=True)
        (folder / path / "result.json").write_text(json.dumps(earlier))
    (folder / "linear/4/features.npz").touch()
    (folder / "linear/10/result.json").write_text("[" * 100_000)
    (folder / "results.jsonl").write_text('{"folder": "gone/1/x"}\n{"fol\n[]\n{"folder": 3}\n')
    put(folder, "h,d", 0.1, of())
    rows = results.rows(folder)
    assert [row["folder"] for row in rows] == ["knn/4", "knn/8/h,d", "linear/4"]
    assert read_rows(folder) == rows
    assert json.loads((folder / "linear/4/result.json").read_text()) == earlier


def test_two_evaluations_that_end_together_are_both_listed(tmp_path, monkeypatch):
    """The second writes its result and the list while the first has read the results."""
    folder, read = epath.Path(tmp_path), results.rows

    def rows(*arguments):
        found = read(*arguments)
        monkeypatch.setattr(results, "rows", read)
        put(folder, "theirs", 0.2, of())
        return found

    monkeypatch.setattr(results, "rows", rows)
    put(folder, "ours", 0.1, of())
    listed = [row["folder"] for row in read_rows(folder)]
    assert listed == ["knn/8/ours", "knn/8/theirs"]


def test_a_folder_that_cannot_be_written_to_is_found_out(tmp_path):
    assert results.unwritable(epath.Path(tmp_path / "a/b")) is None
    assert list((tmp_path / "a/b").iterdir()) == []
    (tmp_path / "file").touch()
    assert results.unwritable(epath.Path(tmp_path / "file/b")) == "Not a directory"
