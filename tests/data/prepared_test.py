"""Where a TFDS dataset is looked for, and what is said where it is not."""

import shutil

import pytest

from simclr_jax.errors import UserError
from support.sources import split, write


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("tiny/1.0.0", "is the folder of tiny's version 1.0.0, which is read"),
        ("tiny", "is not TFDS's data_dir: tiny is read from"),
        ("..", "is not TFDS's data_dir: tiny is read from"),
    ],
)
def test_a_data_dir_some_levels_off_is_recognised(array_records, tmp_path, capsys, path, line):
    shutil.copytree(array_records, tmp_path / "data")
    assert len(split("tiny", tmp_path / "data" / path)) == 20
    assert line in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("tiny:7.7.7", r"'tiny:7\.7\.7': not prepared in .*, where there is tiny:1\.0\.0; name"),
        ("tiny/1.0.0", r"where there is tiny:1\.0\.0; name"),
        ("tidy", r"'tidy': not 'folder'.*, and none prepared in .*, where there is tiny$"),
        ("cifar10", r"'cifar10' is not prepared in .*, where there is tiny; prepare it"),
    ],
)
def test_what_is_prepared_is_named(array_records, name, line):
    with pytest.raises(UserError, match=line):
        split(name, array_records)


def test_another_version_than_the_codes_is_named(tmp_path):
    write(tmp_path / "cifar10/3.0.0/dataset_info.json", b"{}")
    for directory in (tmp_path, tmp_path / "cifar10"):
        with pytest.raises(UserError) as error:
            split("cifar10", directory)
        assert "of TFDS's code is not prepared in" in str(error.value)
        assert "where there is cifar10:3.0.0; name one of these" in str(error.value)


def test_of_many_datasets_the_first_are_named_and_the_others_counted(tmp_path):
    for number in range(23):
        write(tmp_path / f"set{number:02}/1.0.0/dataset_info.json", b"{}")
    with pytest.raises(UserError, match=r"set00, set01, .*, set19 and 3 more"):
        split("tidy", tmp_path)


def test_a_folder_of_another_dataset_is_not_read(array_records, tmp_path):
    shutil.copytree(array_records, tmp_path / "data")
    with pytest.raises(UserError, match="none prepared in"):
        split("other", tmp_path / "data/tiny/1.0.0")
