"""A folder of images: which files belong to it, and what their labels are."""

from support.sources import encoded, pixel, split, write


def test_nested_folders_are_classes_in_order(tmp_path):
    for name, colour in [("b", "blue"), ("a", "red")]:
        for k in range(2):
            write(tmp_path / "train" / name / f"{k}.jpg", encoded(colour))
    write(tmp_path / "val" / "b" / "deep" / "x.png", encoded("blue", "PNG"))
    train, test = split("folder", tmp_path), split("folder", tmp_path, "eval")
    assert (len(train), train.num_classes) == (4, 2)
    images, labels = train.load([0, 1, 2, 3])
    assert labels.tolist() == [0, 0, 1, 1]
    assert pixel(images[0])[0] > 200
    assert test.load([0])[1].tolist() == [1]  # the class number that training uses


def test_one_folder_alone_is_no_label(tmp_path):
    write(tmp_path / "images" / "x.jpg", encoded("red"))
    write(tmp_path / "images" / "y.jpg", encoded("red"))
    assert split("folder", tmp_path, eval_split="train").num_classes == 0


def test_hidden_files_and_other_files_are_left_out(tmp_path):
    write(tmp_path / "x.JPG", encoded("red"))
    write(tmp_path / ".y.jpg", encoded("red"))
    write(tmp_path / ".git" / "z.jpg", encoded("red"))
    write(tmp_path / "notes.txt", b"no image")
    write(tmp_path / "w.jpeg", encoded("red"))
    assert len(split("folder", tmp_path, eval_split="train")) == 2


def test_a_class_may_be_called_train(tmp_path):
    for name in ("bus", "train"):
        write(tmp_path / name / "x.jpg", encoded("red"))
    source = split("folder", tmp_path, eval_split="train")
    assert (len(source), source.num_classes) == (2, 2)
