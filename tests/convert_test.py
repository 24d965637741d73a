"""The convert binary: the authors' weights become a run, and a run becomes other things."""

import json
import os
import subprocess
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow as tf
from etils import epath
from PIL import Image

from simclr_jax import cli, convert
from simclr_jax import eval as evaluation
from simclr_jax.eval import PROTOCOLS
from simclr_jax.evals import results
from simclr_jax.models.simclr import SimCLR
from simclr_jax.store import checkpoint as store
from simclr_jax.weights import formats
from support import tf1
from support.authors_names import named
from support.runs import result, status_of

run = partial(status_of, convert.main)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A TF1 checkpoint of a small network, and the variables in it."""
    model = SimCLR(depth=10, width=0.0625, stem="small", classes=3, head_layers=3)
    variables = jax.tree.map(
        np.asarray, model.init(jax.random.key(1), jnp.zeros((1, 8, 8, 3)), train=False)
    )
    prefix = str(tmp_path_factory.mktemp("authors") / "model.ckpt-40")
    tf1.write(prefix, {**named(variables)["tf1"], "global_step": np.int64(40)})
    return prefix, model, variables


@pytest.fixture(scope="module")
def imported(checkpoint, tmp_path_factory):
    root = tmp_path_factory.mktemp("imported") / "run"
    assert run("import", f"--from={checkpoint[0]}", f"--to={root}", "--image_size=8") == 0
    return root


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "layer", "said"),
    [
        ((), "h", "to sit on h, since h, head1, head2 all have its width; a fine-tuned one "
                  "may sit on head1 (--classifier_layer=head1)"),
        (("--classifier_layer=head2",), "head2", "to sit on head2, as --classifier_layer says"),
    ],
)  # fmt: skip
def test_what_variables_leave_open_is_said_and_may_be_told(
    checkpoint, tmp_path, capsys, flags, layer, said
):
    assert run("import", f"--from={checkpoint[0]}", f"--to={tmp_path}/run", *flags) == 0
    assert said in capsys.readouterr().out
    config = json.loads((tmp_path / "run/config.json").read_text())["config"]
    assert config["model"]["classifier_layer"] == layer


def test_of_weights_and_averages_one_set_is_imported_and_the_other_is_counted(
    checkpoint, tmp_path, capsys
):
    names = named(checkpoint[2])["tf1"]
    averages = {f"ema_model/{name}": array + 1 for name, array in names.items()}
    tf1.write(tmp_path / "both.ckpt", {**names, **averages})
    bias = []
    for flag, said in (
        ("--noaverages", f"{len(names)} moving averages left out, such as ema_model/base_model"),
        ("--averages", f"moving averages taken; {len(names)} other variables left out"),
    ):
        root = tmp_path / flag
        assert run("import", f"--from={tmp_path}/both.ckpt", f"--to={root}", flag) == 0
        assert said in capsys.readouterr().out
        reader = store.Reader(root)
        params = reader.model(0, {k: dict(v) for k, v in checkpoint[2].items()})["params"]
        bias.append(np.asarray(params["classifier"]["dense"]["bias"]))
    np.testing.assert_array_equal(bias[0], checkpoint[2]["params"]["classifier"]["dense"]["bias"])
    np.testing.assert_array_equal(bias[1], bias[0] + 1)


def test_an_imported_run_describes_the_network_it_found(imported, checkpoint):
    described = json.loads((imported / "config.json").read_text())
    config = described["config"]
    assert (config["model"]["depth"], config["model"]["width"]) == (10, 0.0625)
    assert (config["model"]["head_layers"], config["data"]["num_classes"]) == (3, 3)
    assert config["data"]["image_size"] == 8
    assert described["imported_from"] == checkpoint[0]
    assert (imported / "checkpoints" / "40").is_dir()


@pytest.mark.slow
def test_evaluation_takes_an_imported_run(imported, capsys):
    argv = ["--config=eval/knn", f"--run={imported}"]
    for more in ((), ("--untrained",), ("--watch",)):
        assert status_of(evaluation.main, *argv, "--config.data.name=digits", *more) == 0
    found = result(imported, "knn", 40, "h,digits")
    assert (found["checkpoint_step"], found["num_examples"]) == (40, 360)
    assert status_of(evaluation.main, *argv) == cli.USER_ERROR
    assert "config.data.name=None: an imported run has no" in capsys.readouterr().err


@pytest.mark.slow
def test_the_classifier_of_an_imported_run_is_evaluated(imported, tmp_path):
    for number in range(6):
        path = tmp_path / "images" / "abc"[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 40 * number).save(path)
    argv = ["--config=eval/classifier", f"--run={imported}", "--config.classifier.split=all",
            "--config.data.name=folder", f"--config.data.dir={tmp_path}/images"]  # fmt: skip
    assert status_of(evaluation.main, *argv) == 0
    found = result(imported, "classifier", 40, "logits,folder,*")
    assert (found["num_examples"], found["class_names"]) == (6, ["a", "b", "c"])


@pytest.mark.slow
@pytest.mark.parametrize("protocol", sorted({*PROTOCOLS} - {"knn", "embed", "transfer"}))
def test_every_protocol_evaluates_an_imported_run(imported, tmp_path, protocol):
    """But for knn, which has a test of its own, and for embed and transfer, which take as long."""
    for number in range(24):
        path = tmp_path / ("train", "test")[number % 4 == 3] / "abc"[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (10 * number, 40, 90 * (number % 3))).save(path)
    flags = {
        "linear": ["--config.linear.epochs=2", "--config.linear.batch_size=8"],
        "logistic": ["--config.logistic.l2_count=2", "--config.logistic.held_out=0.3"],
        "transform": ["--config.transform.of=noise", "--config.transform.epochs=1"],
    }
    images = ["--config.data.name=folder", f"--config.data.dir={tmp_path}"]
    argv = [f"--config=eval/{protocol}", f"--run={imported}", f"--to={tmp_path}/results", *images]
    assert status_of(evaluation.main, *argv, *flags.get(protocol, [])) == 0
    (found,) = results.rows(epath.Path(tmp_path / "results"))
    assert (found["protocol"], found["checkpoint_step"]) == (protocol, 40)
    assert found["num_examples"] == 6


@pytest.mark.parametrize(
    "form",
    [
        *(name for name in formats.FORMATS if name != "onnx"),
        pytest.param("onnx", marks=pytest.mark.slow),
    ],
)
def test_every_format_is_written_checked_and_described(imported, form, monkeypatch, capsys):
    if form in formats.NCHW:  # The formats that PyTorch makes.
        pytest.importorskip("torch", reason="needs simclr_jax[torch]")
        if form == "onnx":
            pytest.importorskip("onnxruntime", reason="needs simclr_jax[onnx]")
            pytest.importorskip("onnxscript", reason="needs simclr_jax[onnx]")
        from simclr_jax.weights import simclr_torch

        monkeypatch.setitem(simclr_torch.BLOCKS, 10, (False, (1, 1, 1, 1)))
    assert run("export", f"--run={imported}", f"--format={form}") == 0
    folder = imported / "export" / f"{form}-40"
    about = json.loads((folder / "about.json").read_text())
    assert about["checked"] == ["h", "logits", "z"]
    assert about["relative_difference"] < 1e-5
    assert "not normalised by mean and standard deviation" in about["preprocessing"]
    assert about["outputs"] == {"h": [32], "logits": [3], "z": [128]}
    assert run("export", f"--run={imported}", f"--format={form}") == cli.USER_ERROR
    assert "exists already" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("form", formats.FORMATS)
def test_a_network_without_a_classifier_is_exported(checkpoint, tmp_path, monkeypatch, form):
    """As every run of images without labels is."""
    if form in formats.NCHW:
        pytest.importorskip("torch", reason="needs simclr_jax[torch]")
        for package in ("onnxruntime", "onnxscript") if form == "onnx" else ():
            pytest.importorskip(package, reason="needs simclr_jax[onnx]")
        simclr_torch = pytest.importorskip("simclr_jax.weights.simclr_torch")
        monkeypatch.setitem(simclr_torch.BLOCKS, 10, (False, (1, 1, 1, 1)))
    arrays = named(checkpoint[2])["tf1"].items()
    unlabelled = {name: array for name, array in arrays if "supervised" not in name}
    prefix, root = str(tmp_path / "model.ckpt-40"), tmp_path / "run"
    tf1.write(prefix, {**unlabelled, "global_step": np.int64(40)})
    assert run("import", f"--from={prefix}", f"--to={root}", "--image_size=8") == 0
    assert run("export", f"--run={root}", f"--format={form}") == 0
    about = json.loads((root / f"export/{form}-40/about.json").read_text())
    assert about["outputs"] == {"h": [32], "z": [128]}


def test_weights_are_converted_on_the_cpu_whatever_jax_would_take(monkeypatch):
    """A TPU rounds more than the check allows for, and waits for a slice's other hosts."""
    monkeypatch.setitem(convert.COMMANDS, "export", (lambda values: None, lambda values: None))
    before = jax.config.jax_platforms
    jax.config.update("jax_platforms", "tpu,cpu")
    try:
        assert run("export") == 0
        assert jax.config.jax_platforms == "cpu"
    finally:
        jax.config.update("jax_platforms", before)


def test_an_export_that_differs_leaves_nothing(imported, tmp_path, monkeypatch, capsys):
    def broken(network, folder, images):
        (folder / "model.bin").write_text("wrong")
        return {"h": np.full((len(images), 32), 1e3)}

    monkeypatch.setitem(formats.FORMATS, "stablehlo", broken)
    assert run("export", f"--run={imported}", "--format=stablehlo", f"--to={tmp_path}/export") == 1
    assert "differ from ours" in capsys.readouterr().err.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("noise", [np.nan, np.inf])
def test_a_network_whose_outputs_are_not_finite_is_not_exported(
    imported, tmp_path, monkeypatch, capsys, noise
):
    monkeypatch.setattr("simclr_jax.weights.exports.reference", lambda *_: ({}, noise))
    assert run("export", f"--run={imported}", "--format=stablehlo", f"--to={tmp_path}/export") == 1
    assert "--step=40: the outputs of the network are not finite" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        ((), "'': must be one of import, export"),
        (("turn",), "'turn': must be one of import, export"),
        (("import", "--to={tmp}/x"), "--from: required"),
        (("import", "--from={ckpt}"), "--to: required"),
        (("import", "--from={tmp}", "--to={tmp}/x"), "--from={tmp}: no checkpoint there"),
        (("import", "--from={ckpt}", "--to={run}"), "--to={run}: holds a run already"),
        (
            ("import", "--from={ckpt}", "--to={run}/checkpoints"),
            "--to={run}/checkpoints: holds som",
        ),
        (("import", "--from={ckpt}", "--to=/proc/x"), "--to=/proc/x: cannot be written"),
        (
            ("import", "--from={ckpt}", "--to={tmp}/x", "--averages"),
            "--averages=True: the checkpoint has no moving averages",
        ),
        (
            ("import", "--from={ckpt}", "--to={tmp}/x", "--classifier_layer=head3"),
            "--classifier_layer=head3: the classifier fits h or head1 or head2",
        ),
        (("export", "--run={run}"), "--format=None: must be one of torchvision, stablehlo"),
        (("export", "--run={run}", "--format=tflite"), "--format=tflite: must be one of torchv"),
        (("export", "--run={run}", "--format=stablehlo", "--pth"), "--pth: only with"),
        (("export", "--run={run}", "--format=stablehlo", "--step=3"), "--step=3: "),
        (("export", "--run={tmp}", "--format=stablehlo"), "--run={tmp}: no run there"),
        (("export", "--run={run}", "--format=savedmodel", "--to={tmp}"), "--to={tmp}: exists"),
        (
            ("export", "--run={run}", "--format=savedmodel", "--to=gs://b/x"),
            "--to=gs://b/x: exports are written to a local folder; name one by --to",
        ),
    ],
)
def test_bad_input_ends_with_status_2_and_a_line(
    imported, checkpoint, tmp_path, capsys, argv, line
):
    where = {"run": imported, "ckpt": checkpoint[0], "tmp": tmp_path}
    assert run(*(arg.format(**where) for arg in argv)) == cli.USER_ERROR
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith(line.format(**where))


def test_an_export_of_a_run_in_a_bucket_asks_for_a_folder(imported, monkeypatch, capsys):
    monkeypatch.setattr("simclr_jax.store.files.is_remote", lambda path: path == imported)
    assert run("export", f"--run={imported}", "--format=stablehlo") == cli.USER_ERROR
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"--run={imported}: exports are written to a local folder; name one by --to"
    )


def test_foreign_weights_are_named_and_make_no_run(tmp_path, capsys):
    prefix = tf.train.Checkpoint(weight=tf.Variable([1.0], name="dense/weight")).save(
        str(tmp_path / "other")
    )
    assert run("import", f"--from={prefix}", f"--to={tmp_path}/run") == cli.USER_ERROR
    assert "left over: weight" in capsys.readouterr().err.replace("dense/weight", "weight")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_gpu_that_is_named_and_not_there_is_said(tmp_path):
    """As by every other command, though the conversion would not use it."""
    command = [sys.executable, "-m", "simclr_jax.convert", "export", f"--run={tmp_path}"]
    done = subprocess.run(
        [*command, "--format=stablehlo"], env={**os.environ, "JAX_PLATFORMS": "cuda"},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 3
    assert done.stderr.splitlines()[-1].startswith("JAX_PLATFORMS=cuda: no such device")
