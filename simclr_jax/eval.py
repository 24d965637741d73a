"""Evaluates a checkpoint of a run by one protocol.

    simclr-eval --config=configs/eval/linear.py --run=RUN [--step=K] [--untrained] [--watch]

Writes RUN/eval/PROTOCOL/STEP/result.json (STEP is 'untrained' for the untrained network).
"""

import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import jax
from absl import flags
from etils import epath
from ml_collections import ConfigDict, FrozenConfigDict

from simclr_jax import checkpoint, cli, parts, processes, rules
from simclr_jax import config as configs
from simclr_jax import mesh as meshes
from simclr_jax.data.sources import Readable
from simclr_jax.errors import UserError
from simclr_jax.evals import embed, features, knn, linear
from simclr_jax.network import Network, find_step, open_run
from simclr_jax.store import files

POLL_SECONDS = 5.0


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
    root = open_run(run)
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
    reader = checkpoint.Reader(root)

    if untrained:
        run_config = configs.from_json(configs.read(root))
        # Calibrated on the images it is evaluated on, unless those are of another dataset.
        same = run_config.data.name is None or not config.data.name
        images = with_data(run_config, config.data) if same else run_config
        networks: Iterable[Network] = [Network.untrained(run_config, images=images)]
    elif watch:
        found = (unless_pruned(reader, step) for step in watched(reader, root))
        networks = (network for network in found if network is not None)
    elif step is not None:
        networks = [Network.trained(reader, find_step(reader, str(run), step))]
    else:
        networks = [newest(reader, str(run))]
    for network in networks:
        evaluate_one(Task(config, network, root), protocol)


def newest(reader: checkpoint.Reader, run: str) -> Network:
    """The newest checkpoint's network, while the run may go on."""
    while (network := unless_pruned(reader, find_step(reader, run, None))) is None:
        pass
    return network


def unless_pruned(reader: checkpoint.Reader, step: int) -> Network | None:
    """A checkpoint's network; None where the run has pruned it meanwhile."""
    try:
        return Network.trained(reader, step)
    except UserError:
        if step in reader.steps():
            raise
        return None


def watched(reader: checkpoint.Reader, root: epath.Path) -> Any:
    """Yields each checkpoint's step as it appears, until the run's last."""
    seen: set[int] = set()
    while True:
        new = [step for step in reader.steps() if step not in seen]
        seen.update(new)
        yield from new
        run_config = configs.from_json(configs.read(root))
        imported = run_config.data.num_examples is None
        if imported or parts.schedule(run_config).total_steps in seen:
            return
        time.sleep(POLL_SECONDS)


def with_data(run_config: FrozenConfigDict, data: ConfigDict) -> FrozenConfigDict:
    """The run's config, reading the images that an evaluation's data keys name."""
    values: dict[str, Any] = {}
    if data.name is not None:
        values = {"dir": None, "train_split": "train", "eval_split": None, "num_classes": None}
    values |= {key: data[key] for key in data if data[key] is not None}
    return configs.changed(run_config, {f"data.{key}": value for key, value in values.items()})


class Task:
    """One network, one evaluation's config: what a protocol works on.

    Raises:
      UserError: the head has no such layer, or there is no dataset to read.
    """

    def __init__(self, config: ConfigDict, network: Network, root: epath.Path):
        self.config = config
        self.network = network
        self.run_config = with_data(network.config, config.data)
        self.root = root
        if self.run_config.data.name is None:
            raise UserError(
                "config.data.name=None: an imported run has no dataset of its own; name one, or "
                "'folder' with config.data.dir"
            )
        try:
            self.extractor = features.Extractor(
                network.model,
                network.variables,
                layer=config.features.layer,
                image_size=self.run_config.data.image_size,
                batch_size=config.features.batch_size
                or features.ROWS_PER_DEVICE * jax.device_count(),
                transfer_dtype=self.run_config.data.transfer_dtype,
                mesh=meshes.make(),
            )
        except ValueError as error:
            raise UserError(f"config.features.layer={error}") from error

    @property
    def folder(self) -> epath.Path:
        """Where the result is kept."""
        return self.root / "eval" / self.config.protocol / self.network.name

    @cached_property
    def train(self) -> Readable:
        """The training split."""
        return parts.open_split(self.run_config, "train")

    @cached_property
    def test(self) -> Readable:
        """The split that is evaluated on."""
        return parts.open_split(self.run_config, "eval")

    def check_labels(self) -> None:
        """Raises UserError unless both splits have labels of the same classes."""
        classes = self.train.num_classes, self.test.num_classes
        if classes[0] < 2 or classes[0] != classes[1]:
            raise UserError(
                f"config.data.name={self.run_config.data.name!r}: {self.config.protocol} needs "
                f"labels of the same classes in both splits; they have {classes[0]} and "
                f"{classes[1]}"
            )

    def features(self, source: Readable) -> features.Features:
        """The features of a split, computed once a checkpoint and kept in the run."""
        return features.cached(
            self.root / "eval" / "features",
            self.extractor,
            source,
            checkpoint=self._digest,
            transform="eval_view",
            layer=self.config.features.layer,
            image_size=self.run_config.data.image_size,
            dtype=[self.run_config.model.dtype, self.run_config.data.transfer_dtype],
        )

    @cached_property
    def _digest(self) -> str:
        return features.digest(self.network.variables)

    @property
    def tested(self) -> dict[str, Any]:
        """The result's keys that say what was tested."""
        return {"split": self.test.split, "num_examples": len(self.test)}


def evaluate_one(task: Task, protocol: Callable[[Task], dict[str, Any]]) -> None:
    """Applies the protocol, writes and prints the result."""
    network = task.network
    result = {
        "protocol": task.config.protocol,
        "checkpoint_step": network.step or 0,
        "untrained": network.step is None,
        "dataset": task.run_config.data.name,
        "layer": task.config.features.layer,
        **protocol(task),
    }
    if processes.is_primary():
        path = task.folder / "result.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write(path, (json.dumps(result, indent=2) + "\n").encode())
        print(f"{task.config.protocol} of {network.name}: {describe(result)}  ({path})", flush=True)


def run_linear(task: Task) -> dict[str, Any]:
    """`evals.linear`, with all labels or few."""
    task.check_labels()
    keys = task.config.linear
    classes = task.train.num_classes
    if keys.labels_per_class is not None:
        try:
            results = linear.few_labels(
                task.features(task.train),
                task.features(task.test),
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
            **task.tested,
            **linear.spread(results),
            "labels_per_class": keys.labels_per_class,
            "draws": [result["top1"] for result in results],
        }
    options = {
        "batch_size": keys.batch_size,
        "steps": linear.num_steps(
            num_examples=len(task.train), batch_size=keys.batch_size, epochs=keys.epochs
        ),
        "seed": task.config.seed,
    }
    if keys.augment:
        batches = task.extractor.augmented(task.train, **options)
    else:
        batches = linear.shuffled(task.features(task.train), **options)
    params = linear.fit(
        batches,
        classes=classes,
        learning_rate=linear.cosine(keys.lr, batch_size=keys.batch_size, steps=options["steps"]),
        weight_decay=keys.weight_decay,
        seed=task.config.seed,
    )
    test = task.features(task.test)
    return {**task.tested, **linear.accuracies(linear.logits(params, test.x), test.labels)}


def run_knn(task: Task) -> dict[str, Any]:
    """`evals.knn`."""
    task.check_labels()
    keys = task.config.knn
    test = task.features(task.test)
    votes = knn.scores(
        task.features(task.train),
        test,
        classes=task.train.num_classes,
        k=keys.k,
        temperature=keys.temperature,
    )
    return {
        **task.tested,
        **linear.accuracies(votes, test.labels),
        "k": keys.k,
        "temperature": keys.temperature,
    }


def run_embed(task: Task) -> dict[str, Any]:
    """`evals.embed`."""
    keys = task.config.embed
    if keys.split == "all":
        sources = parts.open_all(task.run_config)
    else:
        sources = {keys.split: {"train": task.train, "eval": task.test}[keys.split]}
    folder = epath.Path(keys.dir).expanduser() if keys.dir else task.folder
    return {"split": keys.split, **embed.write(task.extractor, sources, folder)}


PROTOCOLS: dict[str, Callable[[Task], dict[str, Any]]] = {
    "linear": run_linear,
    "knn": run_knn,
    "embed": run_embed,
}


def describe(result: dict[str, Any]) -> str:
    """A result for people."""
    if "top1" not in result:
        left_out = f", {result['unreadable']} left out" if result["unreadable"] else ""
        return f"{result['num_examples']} images of {result['dataset']}{left_out}"
    spread = f" ± {result['top1_std']:.1%}" if "top1_std" in result else ""
    return (
        f"top-1 {result['top1']:.1%}{spread}, top-5 {result['top5']:.1%} "
        f"on {result['num_examples']} images of {result['dataset']}"
    )


if __name__ == "__main__":
    main()
