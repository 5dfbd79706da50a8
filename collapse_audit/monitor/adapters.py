"""Adapters for training frameworks; each is imported only by whoever asks for its adapter."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any

from torch import Tensor

from collapse_audit.monitor.prototype_monitor import PrototypeMonitor
from collapse_audit.monitor.trackers import imported


def lightning_callback(monitor: PrototypeMonitor) -> Any:
    """Make a PyTorch Lightning callback; works with ``lightning`` and ``pytorch_lightning``.

    Args:
        monitor: Looks after the batches. What it sees also goes to the trainer's loggers, at every
            look whatever ``log_every_n_steps``, and to ``callback_metrics``.

    Returns:
        A callback for ``Trainer(callbacks=[...])``.

    Raises:
        CollapseAuditError: If neither package is installed.
    """

    def on_train_batch_end(
        _self: Any, trainer: Any, pl_module: Any, outputs: Any, _batch: Any, _batch_idx: int
    ) -> None:
        loss = outputs.get("loss") if isinstance(outputs, Mapping) else outputs
        shown = loss if isinstance(loss, Tensor) else None
        seen = monitor.step(step=trainer.global_step, loss=shown)
        if seen is not None:
            numbers = seen.to_scalars()
            pl_module.log_dict(numbers, rank_zero_only=True, logger=False)
            for logger in trainer.loggers:
                logger.log_metrics(numbers, step=trainer.global_step)

    base = _base("Callback", "lightning.pytorch.callbacks", "pytorch_lightning.callbacks")
    return type("PrototypeCallback", (base,), {"on_train_batch_end": on_train_batch_end})()


def trainer_callback(monitor: PrototypeMonitor, trainer: Any) -> Any:
    """Make a callback for the Trainer of Hugging Face transformers.

    Args:
        monitor: Looks after the optimiser's steps. At a look the Trainer logs, whatever its
            ``logging_steps``, and the loss is what it logs: the mean since it last did.
        trainer: Gets what was seen through its ``log``, as its own numbers do.

    Returns:
        A callback for ``trainer.add_callback(...)``.

    Raises:
        CollapseAuditError: If transformers is not installed.
    """

    def on_step_end(_self: Any, _args: Any, state: Any, control: Any, **_kwargs: Any) -> None:
        if monitor.is_due(state.global_step):
            control.should_log = True

    def on_log(
        _self: Any, _args: Any, state: Any, _control: Any, logs: Any = None, **_kwargs: Any
    ) -> None:
        if logs and "loss" in logs:  # not the end of the training, an evaluation, or ourselves
            seen = monitor.step(step=state.global_step, loss=logs["loss"])
            if seen is not None:
                trainer.log(seen.to_scalars())

    base = _base("TrainerCallback", "transformers")
    return type("PrototypeCallback", (base,), {"on_step_end": on_step_end, "on_log": on_log})()


def _base(name: str, *modules: str) -> Any:
    """The class to derive from, out of the first module that is installed."""
    for module in modules[:-1]:
        with suppress(ModuleNotFoundError):
            return getattr(import_module(module), name)
    packages = " or ".join(module.split(".")[0] for module in modules)
    return getattr(imported(modules[-1], packages), name)
