"""The kinds of configs: of training runs, of evaluations, of sweeps; each has its command."""

from collections.abc import Sequence

from ml_collections import ConfigDict, FrozenConfigDict

from simclr_jax.config import overrides
from simclr_jax.errors import UserError

# By what the names of the records of a kind begin with: the keys that show it, and its command.
KINDS = {
    "paper/": ({"points", "measures"}, "a sweep's, which simclr-sweep takes"),
    "eval/": ({"protocol"}, "an evaluation's, which simclr-eval takes"),
    "": ({"train", "objective"}, "a training run's, which simclr-train takes"),
}


def load(argv: Sequence[str], kind: str) -> FrozenConfigDict:
    """Loads a config of a kind; see `overrides.load`.

    Args:
      argv: The flag --config, with its overrides.
      kind: The kind, one of `KINDS`.

    Raises:
      UserError: The config cannot be loaded, or is of another kind.
    """
    config = overrides.load(argv)
    found = of(config)
    if found not in (None, kind):
        raise UserError(f"--config={overrides.given(argv)}: is {KINDS[found][1]}")
    return config


def of(config: ConfigDict) -> str | None:
    """The kind of a config; None: it cannot be told.

    >>> of(ConfigDict({"protocol": "knn"}))
    'eval/'
    """
    return next((kind for kind, (signs, _) in KINDS.items() if signs <= {*config}), None)
