"""Whether a config may continue a run that has another one."""

from ml_collections import ConfigDict

from simclr_jax.config import rules
from simclr_jax.config.overrides import get, keys
from simclr_jax.errors import UserError

COUNTED = {"data.num_examples", "data.num_classes"}  # The keys that are counted in the images.


def check(
    config: ConfigDict, stored: ConfigDict, workdir: str, *, allow_change: bool = False
) -> list[str]:
    """Checks that a config may continue a run.

    Args:
      config: The config to continue with.
      stored: The config of the run so far.
      workdir: The folder of the run, for the message.
      allow_change: Whether keys with the rule ASK may have another value.

    Returns:
      The dotted keys, sorted, whose values differ and matter to what is computed.

    Raises:
      UserError: The values differ in a key with the rule FIXED, or ASK without `allow_change`.
    """
    changed = differing(config, stored)

    def listed(names: list[str]) -> str:
        return "; ".join(
            f"config.{key}={get(config, key)!r} (the run has {get(stored, key)!r})" for key in names
        )

    fixed = [key for key in changed if _on_resume(key) == rules.FIXED]
    if fixed:
        raise UserError(
            f"--workdir={workdir}: holds a run of another model or data order; use another "
            f"workdir, or set back {listed(fixed)}"
        )
    if changed and not allow_change:
        raise UserError(
            f"--workdir={workdir}: holds a run of another config; use another workdir, add "
            f"--allow_config_change to go on with the new values, or set back {listed(changed)}"
        )
    return changed


def differing(config: ConfigDict, stored: ConfigDict) -> list[str]:
    """The dotted keys, sorted, whose values differ and matter to what is computed."""
    return [
        key
        for key in sorted({*keys(config), *keys(stored)})
        if get(config, key) != get(stored, key) and _on_resume(key) != rules.FREE
    ]


def _on_resume(key: str) -> str:
    """The `Rule.on_resume` of a key; ASK for a key that the user added to the config."""
    return rules.RUN[key].on_resume if key in rules.RUN else rules.ASK
