"""What a run warns of before its first step."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from ml_collections import ConfigDict

from simclr_jax.config import default, overrides
from simclr_jax.config.parts import Schedule
from simclr_jax.data.digits import Digits
from simclr_jax.data.readable import Readable
from simclr_jax.run import advice
from support.sources import encoded, readable, write
from support.views import ALL, PIPELINE

KINDS = ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "JPEG2000", "AVIF", "PPM"]


@pytest.mark.parametrize("kind", KINDS)
def test_the_shorter_side_is_read_from_the_header(kind):
    assert advice.shorter_sides([encoded("white", kind, size=(40, 30))], 3) == [30]


def test_what_has_no_size_is_left_out():
    damaged = [b"", b"text", encoded("white")[:20], encoded("white", "PNG")[:20], "missing"]
    assert advice.shorter_sides([*damaged, encoded("white", size=(9, 12))], 3) == [9]


@pytest.mark.parametrize(
    ("second", "colour_on", "blur_on", "named"),
    [
        (("crop", "blur", "cutout"), "host", "device", ["blur"]),
        (("crop", "blur", "cutout"), "host", "host", []),
        (("crop", "blur", "grey"), "host", "device", ["blur"]),
        (("crop", "blur", "grey"), "device", "device", []),
        (("crop", "grey", "sobel", "flip"), "device", "device", ["grey"]),
        (("crop", "grey", "blur"), "host", "device", []),
    ],
)
def test_what_the_device_cannot_apply_is_named(caplog, second, colour_on, blur_on, named):
    first = (*PIPELINE[:-1],)
    views = replace(ALL, ops=(first, second), colour_on=colour_on, blur_on=blur_on)
    asked = ConfigDict({"colour_on": colour_on, "blur_on": blur_on})
    with caplog.at_level(logging.WARNING):
        advice.warn_of_what_is_on_the_host(asked, views)
    warned = [record.message for record in caplog.records]
    assert [line.partition(" of view 2 is applied on the host")[0] for line in warned] == named


@pytest.mark.parametrize(
    ("small", "large", "said"),
    [
        (40, 0, "16 of 16 images"), (1, 3, "1 of 4 images"), (1, 4, None), (0, 3, None),
        (1, 0, "1 of 1 images"),
    ],
)  # fmt: skip
def test_images_below_the_views_size_are_warned_of_once(tmp_path, caplog, small, large, said):
    for index in range(small + large):
        side = 12 if index < small else 32
        write(tmp_path / f"train/{index:02}.png", encoded("white", "PNG", size=(40, side)))
    write(tmp_path / "test/0.png", encoded("white", "PNG"))
    images = readable(tmp_path)
    with caplog.at_level(logging.WARNING):
        advice.warn_of_small_images(images.source, 32, 3)
    warned = [record.message for record in caplog.records]
    assert len(warned) == (said is not None)
    if said:
        assert warned[0].startswith(f"{said} that were looked at are smaller than ")
        assert "data.image_size=32 (the shortest side has 12 pixels)" in warned[0]


def test_unreadable_images_are_left_to_the_training(tmp_path, caplog):
    for index in range(4):
        write(tmp_path / f"train/{index}.png", encoded("white", "PNG")[: 40 if index else 999])
    write(tmp_path / "train/4.png", b"\x89PNG")
    write(tmp_path / "test/0.png", encoded("white", "PNG"))
    images = readable(tmp_path, on_bad_image="error")
    advice.warn_of_small_images(images.source, 8, 3)
    assert images.bad == {}
    assert caplog.records == []


@pytest.mark.parametrize(
    ("frozen", "init_run", "said"), [("none", None, 0), ("stem", None, 1), ("stem", "RUN", 0)]
)
def test_frozen_weights_that_were_never_trained_are_warned_of(caplog, frozen, init_run, said):
    config = default.get_config()
    config.train.frozen, config.init.run = frozen, init_run
    advice.warn(config, Schedule(1, 9, np.float32), Readable(Digits("train"), on_bad_image="error"))
    named = [record for record in caplog.records if "train.frozen=stem" in record.message]
    assert len(named) == said


@pytest.mark.parametrize(("warmup", "total", "said"), [(50, 100, 0), (51, 100, 1), (200, 100, 1)])
def test_a_run_that_is_mostly_warmup_is_warned_of(caplog, warmup, total, said):
    advice.warn_of_the_warmup(Schedule(warmup, total, np.float32))
    assert len(caplog.records) == said
    if said:
        assert f"the run's 100 steps the first {min(warmup, 100)} are" in caplog.text


@pytest.mark.parametrize(
    ("backend", "colour_on", "named"),
    [
        ("gpu", "host", "augment.colour_on=device, augment.blur_on=device, more cores, files of"),
        ("gpu", "device", "it faster: more cores, files of"),
        ("cpu", "host", "it faster: more cores, files of"),
    ],
)
def test_a_wait_names_what_would_make_the_input_faster(
    monkeypatch, caplog, backend, colour_on, named
):
    """On a CPU the train step has the same cores, and nothing is gained by moving work to it."""
    monkeypatch.setattr("jax.default_backend", lambda: backend)
    config = default.get_config()
    config.augment.update(colour_on=colour_on, blur_on=colour_on)
    with caplog.at_level(logging.WARNING):
        advice.warn_of_waiting(config, 0.431)
    [warned] = [record.message for record in caplog.records]
    assert warned.startswith("for 43% of the time the devices wait for their input, which the ")
    assert named in warned


def test_what_images_of_other_channels_cannot_have_is_said(capsys):
    views = replace(ALL, channels=5)
    assert advice.left_out(ALL) == advice.left_out(replace(views, ops=(("crop", "blur"),))) == ""
    assert advice.left_out(replace(views, strength=0.0)) == ""
    assert advice.left_out(views).endswith(": hue and saturation of the jitter, grey")
    changes = {"data.name": "digits", "data.channels": 1, "train.batch_size": 16}
    config = overrides.changed(default.get_config(), changes)
    source = Readable(Digits("train"), on_bad_image="error", channels=1)
    advice.warn(config, Schedule(1, 9, np.float32), source)
    assert (
        "config.data.channels=1: left out, as of red, green and blue: hue"
        in capsys.readouterr().out
    )
