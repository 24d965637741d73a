"""Loading a config: overrides, names of records, and one line for every mistake."""

import pytest

from simclr_jax.config import overrides
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


LOADING = [
    ([], "--config: required"),
    (["--config=nowhere.py"], "--config=nowhere.py: no such file 'nowhere.py'"),
    ([DIGITS, "--config.train.batchsize=4"], "config.train.batchsize=4: unknown key "
     "config.train.batchsize; did you mean config.train.batch_size?"),
    ([DIGITS, "--config.nothing=4"], "config.nothing=4: unknown key config.nothing"),
    ([DIGITS, "--config.train.batch_size=many"], "config.train.batch_size=many: not a int"),
    ([DIGITS, "--config.train.steps=1.5"], "config.train.steps=1.5: not a int"),
    ([DIGITS, "--config.optim.lr=fast"], "config.optim.lr=fast: not a float"),
    ([DIGITS, "--config.loss.normalize=perhaps"], "config.loss.normalize=perhaps: not a bool"),
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
    with pytest.raises(UserError, match=r"nowhere'.*\(cifar10, digits, eval/embed, .*imagenet"):
        overrides.load(["--config=nowhere"])
