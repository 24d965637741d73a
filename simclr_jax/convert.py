"""Weights in and out.

    simclr-convert import --from=CHECKPOINT --to=RUN
    simclr-convert export --run=RUN --format=torchvision|stablehlo|savedmodel|onnx|huggingface

import makes a run of the authors' TF1 or TF2 checkpoint or SavedModel: the network is found out
from its variables. simclr-eval and export take the run like one of simclr-train.
export writes RUN/export/FORMAT-STEP (or --to) and checks it against our own features.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from absl import flags
from etils import epath, epy

from simclr_jax import cli
from simclr_jax.config import manual
from simclr_jax.errors import ArgumentError, DifferenceError, UserError

with epy.lazy_imports():  # --help, most refusals and the answer to Ctrl-C need none of these.
    import jax
    import jax.extend
    import jax.numpy as jnp

    from simclr_jax.config import default, record
    from simclr_jax.reports import card
    from simclr_jax.run import network as runs
    from simclr_jax.store import checkpoint, files
    from simclr_jax.weights import author_names, authors, exports, formats, tf_files

CHECKED_IMAGES = 3  # The number of random images on which an export is checked.


def __getattr__(name: str) -> Any:
    """The function from_reference, which is part of this module's interface."""
    if name == "from_reference":
        return authors.from_reference
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _choose_cpu() -> None:
    """Lets JAX compute on the CPU, after a look whether the GPU that JAX_PLATFORMS names is there.

    An accelerator would round the outputs that an export is checked by, and on one of several hosts
    of a slice JAX would wait for the others.
    """
    named = set(filter(None, os.environ.get("JAX_PLATFORMS", "").split(",")))
    if named and not named & {"cpu", "tpu"}:
        jax.devices()
        jax.extend.backend.clear_backends()
    jax.config.update("jax_platforms", "cpu")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs simclr-convert and exits with its status.

    Args:
      argv: The command line without the program's name; None: that of the process.
    """
    command, *rest = [*(sys.argv[1:] if argv is None else argv)] or [""]
    if command in COMMANDS:
        define, work = COMMANDS[command]

        def on_cpu(values: flags.FlagValues) -> None:
            _choose_cpu()
            work(values)

        status = cli.run(
            on_cpu, doc=__doc__, define=define, argv=rest, takes_config=False, joins=False
        )
        sys.exit(status)
    if command in ("-h", "--help"):
        print(__doc__)
        for name, (define, _) in COMMANDS.items():
            define(values := flags.FlagValues())
            print(f"simclr-convert {name}", *manual.of_flags(values), "", sep="\n")
        sys.exit(0)
    if command == "--version":
        print(cli.version())
        sys.exit(0)
    print(f"{command!r}: must be one of {', '.join(COMMANDS)} (--help)", file=sys.stderr)
    sys.exit(cli.USER_ERROR)


def define_import(values: flags.FlagValues) -> None:
    """Defines the flags of simclr-convert import in `values`."""
    flags.DEFINE_string("from", None, "required; the checkpoint or SavedModel", flag_values=values)
    flags.DEFINE_string("to", None, "required; the new run's folder", flag_values=values)
    flags.DEFINE_integer(
        "image_size",
        None,
        "pixels of the images to evaluate on; 32 for the small stem, else 224",
        lower_bound=8,
        upper_bound=4096,
        flag_values=values,
    )
    flags.DEFINE_boolean(
        "averages",
        False,
        "take the moving averages (ema_model/…) that a SimCLRv2 checkpoint holds, not the weights",
        flag_values=values,
    )
    flags.DEFINE_string(
        "classifier_layer",
        None,
        "that the classifier sits on, h or headK; by its width, and h where several layers have it",
        flag_values=values,
    )


def import_weights(values: flags.FlagValues) -> None:
    """Makes a run of the authors' weights.

    Args:
      values: The flags of `define_import`.

    Raises:
      UserError: A flag or the checkpoint is at fault, or the run's folder is not empty.
    """
    for flag in ("from", "to"):
        if not values[flag].value:
            raise UserError(f"--{flag}: required")
    origin, to, image_size = str(values["from"].value), str(values.to), values.image_size
    root = epath.Path(to).expanduser()
    root = root if files.is_remote(to) else root.resolve()
    checkpoint.check_path(root, argument="to")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        content = "a run" if (root / "config.json").exists() else "something"
        raise UserError(f"--to={to}: holds {content} already; give a new or an empty folder")
    checkpoint.quiet()
    variables, step = tf_files.read(os.path.expanduser(origin))
    try:
        model, params, batch_stats = authors.from_reference(
            variables, averages=values.averages, classifier_layer=values.classifier_layer
        )
    except ArgumentError:
        raise
    except ValueError as error:
        raise UserError(f"--from={origin}: {error}") from error
    config = default.get_config()
    config.model.update(model)
    config.data.num_classes = (
        params["classifier"]["dense"]["kernel"].shape[-1] if "classifier" in params else 0
    )
    config.data.image_size = image_size or (32 if model.stem == "small" else 224)
    described = record.describe(
        config, device=jax.devices()[0].device_kind, devices=jax.device_count()
    )
    described |= {"imported_from": str(origin), "averages": values.averages}
    arrays = jax.tree.map(jnp.asarray, {"params": params, "batch_stats": batch_stats})
    try:
        with files.replacing(root) as (folder,):
            folder.mkdir(parents=True)
            checkpoint.save_model(folder, step, arrays, described)
            record.write(folder, described)
    except OSError as error:
        raise UserError(f"--to={to}: cannot be written ({error.strerror})") from error
    for line in guesses(variables, values, params, model.classifier_layer):
        print(line)
    print(
        f"imported ResNet-{model.depth} x{model.width:g}"
        f"{f', sk_ratio {model.sk_ratio:g}' if model.sk_ratio else ''}"
        f"{f', se_ratio {model.se_ratio:g}' if model.se_ratio else ''}, {model.stem} stem, "
        f"{'no' if model.head == 'none' else f'{model.head} {model.head_layers}-layer'} head, "
        f"{config.data.num_classes or 'no'} classes, step {step} as {to}, for images of "
        f"{config.data.image_size} px\n"
        f"next: simclr-eval --config=configs/eval/linear.py --run={shlex.quote(to)} "
        "--config.data.name=…"
    )


def guesses(
    variables: Mapping[str, Any], values: flags.FlagValues, params: Any, classifier_layer: str
) -> Iterator[str]:
    """Yields a line for each choice that the checkpoint leaves open: what was taken, what not.

    Args:
      variables: The variables of the checkpoint by name.
      values: The flags of `define_import`.
      params: The parameters that were taken.
      classifier_layer: The layer that the classifier is taken to sit on.
    """
    averages = [name for name in variables if author_names.is_average(name)]
    if values.averages:
        yield f"moving averages taken; {len(variables) - len(averages)} other variables left out"
    elif averages:
        yield (
            f"{len(averages)} moving averages left out, such as {min(averages)} (--averages takes "
            "them in place of the weights)"
        )
    fitting = authors.classifier_layers(params)
    if not fitting:
        return
    line = f"the classifier is taken to sit on {classifier_layer}"
    if values.classifier_layer is not None:
        line += ", as --classifier_layer says"
    elif len(fitting) == 1:
        line += ", the only layer of its width"
    else:
        line += (
            f", since {', '.join(fitting)} all have its width; a fine-tuned one may sit on "
            f"{fitting[1]} (--classifier_layer={fitting[1]})"
        )
    yield line


def define_export(values: flags.FlagValues) -> None:
    """Defines the flags of simclr-convert export in `values`."""
    flags.DEFINE_string("run", None, "required; the run's folder", flag_values=values)
    flags.DEFINE_integer("step", None, "of the checkpoint; the newest one", flag_values=values)
    flags.DEFINE_string(
        "format", None, f"required; {', '.join(formats.FORMATS)}", flag_values=values
    )
    flags.DEFINE_string("to", None, "a new folder; RUN/export/FORMAT-STEP", flag_values=values)
    flags.DEFINE_boolean("pth", False, "torchvision: write a .pth as well", flag_values=values)


def export_weights(values: flags.FlagValues) -> None:
    """Writes a run's network in the format of another framework, and checks it there.

    Args:
      values: The flags of `define_export`.

    Raises:
      UserError: A flag is at fault, or there is no such run or checkpoint.
      DifferenceError: The outputs of the export differ from ours; nothing is written.
    """
    root, writer = runs.open_run(values.run), formats.FORMATS.get(values.format)
    if writer is None:
        raise UserError(f"--format={values.format}: must be one of {', '.join(formats.FORMATS)}")
    if values.pth and values.format != "torchvision":
        raise UserError(f"--pth: only with --format=torchvision, not {values.format}")
    formats.check_installed(values.format)
    checkpoint.quiet()
    reader = checkpoint.Reader(root)
    step = runs.find_step(reader, values.run, values.step)
    target = Path(values.to or root / "export" / f"{values.format}-{step}").expanduser()
    if files.is_remote(values.to or root):
        given = f"--to={values.to}" if values.to else f"--run={values.run}"
        raise UserError(f"{given}: exports are written to a local folder; name one by --to")
    if target.exists():
        raise UserError(f"--to={target}: exists already; remove it or name another")
    network = runs.Network.trained(reader, step)
    options = {"pth": values.pth} if values.format == "torchvision" else {}
    try:
        with files.replacing(target) as (folder,):
            folder.mkdir(parents=True)
            about = fill(network, Path(folder), values.format, partial(writer, **options))
            if values.format == "huggingface":
                text = card.of_run(values.run, step, about)
                files.write_text(folder / "README.md", text)
    except OSError as error:
        raise UserError(f"--to={target}: cannot be written ({error.strerror})") from error
    print(
        f"exported step {step} as {target}; {', '.join(about['checked'])} agree with ours to "
        f"{about['relative_difference']:.1e}"
    )
    if values.format == "huggingface":
        print(
            f"next: read {target / 'README.md'}, choose a license there, and "
            f"hf upload USER/NAME {shlex.quote(str(target))}"
        )


def fill(
    network: runs.Network, folder: Path, name: str, writer: Callable[..., exports.Outputs]
) -> dict[str, Any]:
    """Writes an export, checks it, and describes its inputs and outputs in about.json.

    Args:
      network: The network.
      folder: The folder that the export is written to.
      name: The name of the format.
      writer: The function that writes the format and returns its outputs for the check.

    Returns:
      The content of about.json.

    Raises:
      DifferenceError: The outputs of the export differ from ours.
    """
    config, model = network.config, network.model.clone(dtype=jnp.float32)
    size, variables = config.data.image_size, jax.tree.map(np.asarray, network.variables)
    exported = exports.Exported(model, variables, size, config.data.value_range)
    shape = (CHECKED_IMAGES, size, size, model.channels)
    images = np.random.default_rng(0).random(shape, np.float32)
    exact, noise = exports.reference(model, variables, images)
    if not np.isfinite(noise):
        raise DifferenceError(
            f"--step={network.name}: the outputs of the network are not finite; nothing was written"
        )
    theirs = writer(exported, folder, images)
    found, allowed = exports.difference(exact, theirs), max(exports.TOLERANCE, 10 * noise)
    if not found <= allowed:
        raise DifferenceError(
            f"--format={name}: its outputs differ from ours by {found:.1e}, more than "
            f"{allowed:.1e}; nothing was written"
        )
    about = {
        "format": name,
        "network": {**config.model.to_dict(), "num_classes": model.classes},
        "checkpoint_step": network.step,
        "image_size": size,
        "channels": model.channels,
        "value_range": config.data.value_range,
        "preprocessing": exports.preprocessing(exported),
        "layout": "NCHW" if name in formats.NCHW else "NHWC",
        "outputs": {key: list(value.shape[1:]) for key, value in theirs.items()},
        "checked": sorted(theirs),
        "relative_difference": found,
        "relative_difference_allowed": allowed,
        "relative_difference_of_float32": noise,
    }
    (folder / "about.json").write_text(json.dumps(about, indent=2) + "\n")
    return about


# The function that defines the flags and the one that does the work, by command.
COMMANDS: dict[str, tuple[Callable[[flags.FlagValues], None], Callable[..., None]]] = {
    "import": (define_import, import_weights),
    "export": (define_export, export_weights),
}


if __name__ == "__main__":
    main()
