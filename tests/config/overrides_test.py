"""Loading a config: overrides, names of records, and one line for every mistake."""

from pathlib import Path

import pytest

from simclr_jax.config import default, default_eval, manual, overrides, shipped
from simclr_jax.errors import UserError

DIGITS = "--config=digits"


def test_overrides_and_arguments():
    config = overrides.load(
        [
            "--config=imagenet:depth=101,width=2",
            "--config.train.batch_size=512",
            "--config.augment.ops=('crop','flip')",
            "--config.train.steps=7",
            "--config.loss.normalize=false",
            "--config.optim.lr=1e-3",
        ]
    )
    assert (config.model.depth, config.model.width) == (101, 2.0)
    assert config.train.batch_size == 512
    assert config.augment.ops == ("crop", "flip")
    assert config.train.steps == 7
    assert config.loss.normalize is False
    assert config.optim.lr == 1e-3


@pytest.mark.parametrize("value", ["crop,flip", "('crop','flip')", '["crop", "flip"]'])
def test_words_of_a_tuple_need_no_quotes(value):
    config = overrides.load([DIGITS, f"--config.augment.ops={value}"])
    assert config.augment.ops == ("crop", "flip")


@pytest.mark.parametrize("value", ["('crop','flip'),('crop','grey')", "(crop, flip), (crop,grey)"])
def test_a_tuple_of_tuples_needs_no_quotes_either(value):
    config = overrides.load([DIGITS, f"--config.augment.ops={value}"])
    assert config.augment.ops == (("crop", "flip"), ("crop", "grey"))
    for value in ("(crop),(crop,grey)", "(crop,),(crop,grey)"):
        config = overrides.load([DIGITS, f"--config.augment.ops={value}"])
        assert config.augment.ops == (("crop",), ("crop", "grey"))
    assert overrides.load([DIGITS, "--config.augment.ops=(crop)"]).augment.ops == ("crop",)


def test_the_last_override_of_a_key_counts():
    given = ["seed=1", "augment.ops=crop,flip", "train.steps=3", "data.dir=None", "seed=2",
             "augment.ops=crop,grey", "train.steps=None", "data.dir=images"]  # fmt: skip
    config = overrides.load([DIGITS, *(f"--config.{each}" for each in given)])
    assert (config.seed, config.augment.ops) == (2, ("crop", "grey"))
    assert (config.train.steps, config.data.dir) == (None, "images")


LOADING = [
    ([], "--config: required"),
    (["--config=nowhere.py"], "--config=nowhere.py: no such file 'nowhere.py'"),
    ([DIGITS, "--config.train.lr=1"], "unknown key config.train.lr; did you mean config.optim.lr?"),
    ([DIGITS, "--config.data.path=x"], "did you mean config.data.dir?"),
    ([DIGITS, "--config.optim.learning_rat=1"], "config.optim.learning_rat=1: unknown key"),
    ([DIGITS, "--config.batchsize=4"],
     "did you mean config.train.batch_size or config.eval.batch_size?"),
    ([DIGITS, "--config.optim=3"], "but a section, of optim.lr, optim.lr_scaling"),
    ([DIGITS, "--noconfig.train.steps"], "config.train.steps=false: must be of type int or None"),
    ([DIGITS, "--config.train.batchsize=4"], "config.train.batchsize=4: unknown key "
     "config.train.batchsize; did you mean config.train.batch_size?"),
    ([DIGITS, "--config.nothing=4"], "config.nothing=4: unknown key config.nothing"),
    ([DIGITS, "--config.train.batch_size=many"], "batch_size=many: must be of type int"),
    ([DIGITS, "--config.train.steps=1.5"], "config.train.steps=1.5: must be of type int"),
    ([DIGITS, "--config.optim.lr=fast"], "config.optim.lr=fast: must be of type float"),
    ([DIGITS, "--config.loss.normalize=perhaps"], "normalize=perhaps: must be of type bool"),
    ([DIGITS, "--config.optim=3"], "config.optim=3: unknown key config.optim"),
    ([DIGITS, "--config.train.steps=3", "--config.data.cache_byte=3"], "did you mean"),
    ([f"{DIGITS}:depth=3"], "--config=digits:depth=3: TypeError"),
    (["--config=imagenet:height=3"], "'height=3': known arguments are depth"),
    (["--config=imagenet:depth=x"], "'depth=x': depth takes int"),
]  # fmt: skip


@pytest.mark.parametrize(("argv", "line"), LOADING)
def test_what_cannot_be_loaded_is_named(argv, line):
    with pytest.raises(UserError) as error:
        overrides.load(argv)
    assert line in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("record", ["folder", "eval/linear"])
def test_none_is_none_for_every_key_that_may_be_and_refused_for_others(record):
    config = overrides.load([f"--config={record}"])
    files = [default.__file__ if record == "folder" else default_eval.__file__]
    about = [manual.comments(Path(file)) for file in [*files, shipped.find(record)]]
    may_be = {
        key for each in about for key, text in each.items() if "None:" in text or "None " in text
    }
    may_be |= {"data.name"} & {*overrides.keys(config)}
    assert {"data.dir", "data.eval_split"} <= may_be
    for key in overrides.keys(config):
        flags = [f"--config={record}", f"--config.{key}=None"]
        if key in may_be:
            assert overrides.get(overrides.load(flags), key) is None, key
            continue
        with pytest.raises(
            UserError, match=rf"^config\.{key}=None: must be of type \w+; this key may not"
        ):
            overrides.load(flags)


def test_of_several_values_of_a_key_the_last_one_counts():
    flags = [DIGITS, "--config.train.steps=None", "--config.train.steps=3"]
    assert overrides.load(flags).train.steps == 3
    assert overrides.load([*flags, "--config.train.steps=None"]).train.steps is None
    assert overrides.load([DIGITS, "--noconfig.log.tensorboard"]).log.tensorboard is False


def test_a_value_that_follows_from_another_one_does_so_after_overrides():
    assert overrides.load(["--config=folder"]).optim.warmup_epochs == 10.0
    short = ["--config=folder", "--config.train.epochs=50"]
    assert overrides.load(short).optim.warmup_epochs == 2.5
    assert overrides.load([*short, "--config.optim.warmup_epochs=4"]).optim.warmup_epochs == 4.0


def test_a_file_that_fails_is_named(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("from simclr_jax.config import default\n\n"
                    "def get_config():\n    c = default.get_config()\n    c.train.batch = 3\n"
                    "    c.lock()\n    return c\n")  # fmt: skip
    assert "train" in overrides.load([f"--config={path}"])
    path.write_text("def get_config():\n    return missing\n")
    with pytest.raises(UserError, match=r"mine\.py: NameError: name 'missing'"):
        overrides.load([f"--config={path}"])
    path.write_text("def get_config():\n    return 3\n")
    with pytest.raises(UserError, match=r"mine\.py: TypeError: get_config returned int"):
        overrides.load([f"--config={path}"])


@pytest.mark.parametrize("name", ["digits", "configs/digits.py", "eval/linear"])
def test_a_record_is_found_by_its_name_from_any_folder(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    config = overrides.load([f"--config={name}", "--config.seed=3"])
    assert config.seed == 3


def test_a_file_here_comes_before_a_record_of_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").write_text(
        "import ml_collections\n\n"
        "def get_config():\n    return ml_collections.ConfigDict({'x': 1})\n"
    )
    assert overrides.load(["--config=digits"]).to_dict() == {"x": 1}


def test_a_name_takes_arguments_and_an_unknown_one_is_answered_with_those_there_are():
    config = overrides.load(["--config=imagenet:depth=101"])
    assert config.model.depth == 101
    with pytest.raises(
        UserError, match=r"nowhere'.*\(cifar10, .*digits, .*imagenet, .*, eval/…, paper/…\)"
    ):
        overrides.load(["--config=nowhere"])
    with pytest.raises(UserError, match=r"\(eval/classifier, .*eval/transform, paper/…\)"):
        overrides.load(["--config=eval/x"])
    with pytest.raises(UserError, match=r"\(did you mean eval/knn\?\)"):
        overrides.load(["--config=knn.py"])
