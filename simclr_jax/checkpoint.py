"""Saving and restoring, through Orbax. The only file that knows it.

A checkpoint is the folder WORKDIR/checkpoints/<step> with four items: `model` (params and
batch_stats, all that an evaluation needs), `optimizer` (step and opt_state), `config` (as in
config.json) and the evaluation's `metrics`, if that step was evaluated.
"""

import logging
from typing import Any

import orbax.checkpoint as ocp
from etils import epath

from simclr_jax.state import TrainState

_LOGGERS = ("absl", "orbax")


class Checkpoints:
    """A run's checkpoints, as the trainer sees them: saved asynchronously, pruned, restored.

    Args:
      workdir: of the run.
      keep: how many of the latest to keep.
      best: the metric whose best evaluated checkpoint is kept besides: 'eval_top1' (highest) or
        'eval_loss' (lowest).
    """

    def __init__(self, workdir: epath.PathLike, *, keep: int, best: str):
        policies = ocp.checkpoint_managers

        def metric(metrics: Any) -> float:
            return float(metrics[best])

        self._manager = ocp.CheckpointManager(
            epath.Path(workdir) / "checkpoints",
            options=ocp.CheckpointManagerOptions(
                best_fn=metric,
                best_mode="max" if best == "eval_top1" else "min",
                preservation_policy=policies.AnyPreservationPolicy(
                    [
                        policies.LatestN(keep),
                        policies.BestN(
                            get_metric_fn=metric,
                            reverse=best != "eval_top1",
                            n=1,
                            keep_checkpoints_without_metrics=False,
                        ),
                    ]
                ),
                cleanup_tmp_directories=True,
            ),
        )

    def latest_step(self) -> int | None:
        """The newest checkpoint's step, or None."""
        return self._manager.latest_step()

    def save(
        self, step: int, state: TrainState, config: dict[str, Any], metrics: dict[str, float] | None
    ) -> None:
        """Starts saving the state after update `step`; the arrays may be donated on return.

        Args:
          config: what `config.describe` returned.
          metrics: of the evaluation at this step, if there was one.
        """
        self._manager.save(
            step,
            args=ocp.args.Composite(
                model=ocp.args.StandardSave(_model(state)),
                optimizer=ocp.args.StandardSave({"step": state.step, "opt_state": state.opt_state}),
                config=ocp.args.JsonSave(config),
            ),
            metrics=metrics,
        )

    def restore_config(self, step: int) -> dict[str, Any]:
        """What `save` was given as config."""
        return _restore(self._manager, step, config=ocp.args.JsonRestore())["config"]

    def restore(self, step: int, abstract: TrainState) -> TrainState:
        """The state of a checkpoint, placed as `abstract` (shapes and shardings) says."""
        items = _restore(
            self._manager,
            step,
            model=ocp.args.StandardRestore(_model(abstract)),
            optimizer=ocp.args.StandardRestore(
                {"step": abstract.step, "opt_state": abstract.opt_state}
            ),
        )
        return TrainState(**items["model"], **items["optimizer"])

    def close(self) -> None:
        """Waits for a save under way."""
        self._manager.wait_until_finished()
        self._manager.close()


class Reader:
    """A run's checkpoints, as an evaluation sees them: it cannot write or delete any."""

    def __init__(self, workdir: epath.PathLike):
        self._folder = epath.Path(workdir) / "checkpoints"

    def steps(self) -> list[int]:
        """Steps of the finished checkpoints, ascending."""
        if not self._folder.is_dir():
            return []
        return sorted(ocp.utils.checkpoint_steps(self._folder))

    def config(self, step: int) -> dict[str, Any]:
        """What `Checkpoints.save` was given as config."""
        with self._manager() as manager:
            return _restore(manager, step, config=ocp.args.JsonRestore())["config"]

    def model(self, step: int, abstract: dict[str, Any]) -> dict[str, Any]:
        """{"params", "batch_stats"} of a checkpoint, placed as `abstract` says."""
        with self._manager() as manager:
            return _restore(manager, step, model=ocp.args.StandardRestore(abstract))["model"]

    def _manager(self) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(read_only=True, create=False)
        return ocp.CheckpointManager(self._folder, options=options)


def save_model(
    workdir: epath.PathLike, step: int, variables: dict[str, Any], config: dict[str, Any]
) -> None:
    """Saves a network alone, with no optimizer, as the checkpoint `step` of a new run.

    Args:
      variables: {"params", "batch_stats"}.
      config: what `config.describe` returned.
    """
    with ocp.CheckpointManager(epath.Path(workdir) / "checkpoints") as manager:
        manager.save(
            step,
            args=ocp.args.Composite(
                model=ocp.args.StandardSave(variables), config=ocp.args.JsonSave(config)
            ),
        )


def _model(state: TrainState) -> dict[str, Any]:
    return {"params": state.params, "batch_stats": state.batch_stats}


def _restore(manager: ocp.CheckpointManager, step: int, **items: Any) -> Any:
    return manager.restore(step, args=ocp.args.Composite(**items))


def quiet() -> None:
    """Orbax reports every file it touches; a run's own lines are enough."""
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
