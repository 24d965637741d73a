"""Evaluates a checkpoint of a run by one protocol.

    simclr-eval --config=configs/eval/linear.py --run=RUN [--step=K] [--untrained] [--watch]

Writes RUN/eval/PROTOCOL/STEP/result.json (STEP is 'untrained' for the untrained network).
"""

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from absl import flags
from etils import epath
from ml_collections import ConfigDict

from simclr_jax import checkpoint, cli, parts, rules
from simclr_jax import config as configs
from simclr_jax import mesh as meshes
from simclr_jax import state as states
from simclr_jax.data.sources import Readable
from simclr_jax.errors import UserError
from simclr_jax.evals import features, knn, linear
from simclr_jax.models.simclr import SimCLR

POLL_SECONDS = 5.0
ROWS_PER_DEVICE = 64


def define(values: flags.FlagValues) -> None:
    flags.DEFINE_string("run", None, "required; the run's folder", flag_values=values)
    flags.DEFINE_integer("step", None, "of the checkpoint; the newest one", flag_values=values)
    flags.DEFINE_boolean(
        "untrained", False, "evaluate the network as initialised", flag_values=values
    )
    flags.DEFINE_boolean(
        "watch", False, "evaluate each new checkpoint until the run ends", flag_values=values
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of simclr-eval."""

    def run(values: flags.FlagValues, config: ConfigDict) -> None:
        evaluate(
            config,
            values.run,
            step=values.step,
            untrained=values.untrained,
            watch=values.watch,
        )

    sys.exit(cli.run(run, doc=__doc__, define=define, argv=argv))


def evaluate(
    config: ConfigDict, run: str | None, *, step: int | None, untrained: bool, watch: bool
) -> None:
    """Evaluates one checkpoint, the untrained network, or each checkpoint as it comes."""
    if not run:
        raise UserError("--run: required, the folder of a run of simclr-train")
    protocol = PROTOCOLS.get(config.get("protocol"))
    if protocol is None:
        raise UserError(
            f"config.protocol={config.get('protocol')!r}: must be one of {', '.join(PROTOCOLS)}; "
            "is --config an evaluation's (configs/eval/…)?"
        )
    if sum((untrained, watch, step is not None)) > 1:
        raise UserError("--watch, --untrained, --step: only one of them at a time")
    checkpoint.quiet()
    rules.check(config, devices=jax.device_count())
    root = epath.Path(run).expanduser()
    if not (root / "config.json").exists():
        raise UserError(f"--run={run}: no run there (no config.json)")
    root = root if "://" in run else root.resolve()
    reader = checkpoint.Reader(root)

    if untrained:
        evaluate_one(config, root, Network.untrained(config, configs.read(root)), protocol)
        return
    if watch:
        for found in watched(reader, root):
            evaluate_one(config, root, Network.trained(config, reader, found), protocol)
        return
    steps = reader.steps()
    if not steps:
        raise UserError(f"--run={run}: has no checkpoint yet")
    if step is not None and step not in steps:
        raise UserError(f"--step={step}: {run} has checkpoints {', '.join(map(str, steps))}")
    found = steps[-1] if step is None else step
    evaluate_one(config, root, Network.trained(config, reader, found), protocol)


def watched(reader: checkpoint.Reader, root: epath.Path) -> Any:
    """Yields each checkpoint's step as it appears, until the run's last."""
    seen: set[int] = set()
    while True:
        new = [step for step in reader.steps() if step not in seen]
        seen.update(new)
        yield from (step for step in new if step in reader.steps())  # not pruned meanwhile
        run_config = configs.from_json(configs.read(root))
        if parts.schedule(run_config).total_steps in seen:
            return
        time.sleep(POLL_SECONDS)


class Network(NamedTuple):
    """A network to evaluate: the run's config with the evaluation's data keys, and its weights."""

    config: ConfigDict
    model: SimCLR
    variables: Any
    step: int | None  # of the checkpoint; None: the untrained network

    @property
    def name(self) -> str:
        return "untrained" if self.step is None else str(self.step)

    @classmethod
    def trained(cls, config: ConfigDict, reader: checkpoint.Reader, step: int) -> "Network":
        run_config = configs.from_json(reader.config(step))
        model = parts.model(run_config)
        abstract = states.abstract(
            model,
            parts.optimizer(run_config, parts.schedule(run_config).learning_rate),
            image_size=run_config.data.image_size,
            mesh=meshes.make(),
        )
        variables = reader.model(step, abstract)
        return cls(with_data(run_config, config.data), model, variables, step)

    @classmethod
    def untrained(cls, config: ConfigDict, described: dict[str, Any]) -> "Network":
        run_config = configs.from_json(described)
        mesh, model = meshes.make(), parts.model(run_config)
        size = run_config.data.image_size
        tx = parts.optimizer(run_config, parts.schedule(run_config).learning_rate)
        state = states.create(model, tx, seed=run_config.seed, image_size=size, mesh=mesh)
        variables = features.calibrate(
            model,
            {"params": state.params, "batch_stats": state.batch_stats},
            # On the images it is evaluated on, unless those are of another dataset.
            parts.open_split(
                run_config if config.data.name else with_data(run_config, config.data), "train"
            ),
            batch_size=ROWS_PER_DEVICE * jax.device_count(),
            image_size=size,
            transfer_dtype=run_config.data.transfer_dtype,
            mesh=mesh,
        )
        return cls(with_data(run_config, config.data), model, variables, None)


def with_data(run_config: ConfigDict, data: ConfigDict) -> ConfigDict:
    """The run's config, reading the images that an evaluation's data keys name."""
    config = run_config.copy_and_resolve_references()
    if data.name is not None:
        config.data.update(dir=None, train_split="train", eval_split=None)
    with config.ignore_type():
        for key in data:
            if data[key] is not None:
                config.data[key] = data[key]
    return config


def evaluate_one(
    config: ConfigDict,
    root: epath.Path,
    network: Network,
    protocol: "Callable[[Task], dict[str, Any]]",
) -> None:
    """Computes or loads the features, applies the protocol, writes and prints the result."""
    run_config = network.config
    train, test = parts.open_split(run_config, "train"), parts.open_split(run_config, "eval")
    if train.num_classes < 2 or test.num_classes != train.num_classes:
        raise UserError(
            f"config.data.name={run_config.data.name!r}: {config.protocol} needs labels of the "
            f"same classes in both splits; they have {train.num_classes} and {test.num_classes}"
        )
    size = config.features.batch_size or ROWS_PER_DEVICE * jax.device_count()
    try:
        extractor = features.Extractor(
            network.model,
            network.variables,
            layer=config.features.layer,
            image_size=run_config.data.image_size,
            batch_size=size,
            transfer_dtype=run_config.data.transfer_dtype,
            mesh=meshes.make(),
        )
    except ValueError as error:
        raise UserError(f"config.features.layer={error}") from error
    folder = root / "eval" / "features"
    key = {
        "checkpoint": features.digest(network.variables),
        "transform": "eval_view",
        "layer": config.features.layer,
        "image_size": run_config.data.image_size,
        "dtype": [run_config.model.dtype, run_config.data.transfer_dtype],
    }
    test_features = features.cached(folder, extractor, test, **key)

    def train_features() -> features.Features:
        return features.cached(folder, extractor, train, **key)

    measured = protocol(Task(config, extractor, train, train_features, test_features))
    result = {
        "protocol": config.protocol,
        "checkpoint_step": network.step or 0,
        "untrained": network.step is None,
        "dataset": run_config.data.name,
        "split": test.split,
        "num_examples": len(test),
        "layer": config.features.layer,
        **measured,
    }
    if checkpoint.is_primary():
        path = root / "eval" / config.protocol / network.name / "result.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_suffix(f".{os.getpid()}.tmp")
        partial.write_text(json.dumps(result, indent=2) + "\n")
        partial.replace(path)
        print(f"{config.protocol} of {network.name}: {describe(result)}  ({path})", flush=True)


class Task(NamedTuple):
    """What a protocol works on."""

    config: ConfigDict
    extractor: features.Extractor
    source: Readable  # of the training images
    train_features: Callable[[], features.Features]  # computed or read where they are needed
    test: features.Features


def run_linear(task: Task) -> dict[str, Any]:
    """`evals.linear`, with all labels or few."""
    keys = task.config.linear
    classes = task.source.num_classes
    if keys.labels_per_class is not None:
        try:
            results = linear.few_labels(
                task.train_features(),
                task.test,
                classes=classes,
                per_class=keys.labels_per_class,
                draws=keys.draws,
                c=keys.c,
                seed=task.config.seed,
            )
        except ValueError as error:
            raise rules.wrong(
                "linear.labels_per_class", keys.labels_per_class, str(error)
            ) from error
        return {
            **linear.spread(results),
            "labels_per_class": keys.labels_per_class,
            "draws": [result["top1"] for result in results],
        }
    options = {
        "batch_size": keys.batch_size,
        "steps": linear.num_steps(
            num_examples=len(task.source), batch_size=keys.batch_size, epochs=keys.epochs
        ),
        "seed": task.config.seed,
    }
    if keys.augment:
        batches = task.extractor.augmented(task.source, **options)
    else:
        batches = linear.shuffled(task.train_features(), **options)
    params = linear.fit(
        batches,
        classes=classes,
        learning_rate=linear.cosine(keys.lr, batch_size=keys.batch_size, steps=options["steps"]),
        weight_decay=keys.weight_decay,
        seed=task.config.seed,
    )
    return linear.accuracies(linear.logits(params, task.test.x), task.test.labels)


def run_knn(task: Task) -> dict[str, Any]:
    """`evals.knn`."""
    keys = task.config.knn
    votes = knn.scores(
        task.train_features(),
        task.test,
        classes=task.source.num_classes,
        k=keys.k,
        temperature=keys.temperature,
    )
    return {
        **linear.accuracies(votes, task.test.labels),
        "k": keys.k,
        "temperature": keys.temperature,
    }


PROTOCOLS: dict[str, Callable[[Task], dict[str, Any]]] = {"linear": run_linear, "knn": run_knn}


def describe(result: dict[str, Any]) -> str:
    """A result for people."""
    spread = f" ± {result['top1_std']:.1%}" if "top1_std" in result else ""
    return (
        f"top-1 {result['top1']:.1%}{spread}, top-5 {result['top5']:.1%} "
        f"on {result['num_examples']} images of {result['dataset']}"
    )


if __name__ == "__main__":
    main()
