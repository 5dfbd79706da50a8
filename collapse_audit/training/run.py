"""A run folder: configuration, log, states, head and audit of one training run."""

from __future__ import annotations

import json
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from collapse_audit.devices import pick_device
from collapse_audit.errors import CheckpointError, ParameterError
from collapse_audit.settings import read_settings
from collapse_audit.training.checkpointing import (
    load_network,
    load_state,
    save_head,
    save_state,
    sole_use,
    write_text,
)
from collapse_audit.training.config import HeadTrainingConfig
from collapse_audit.training.data import Data, load_data
from collapse_audit.training.evaluate import summarise
from collapse_audit.training.log import RunLog
from collapse_audit.training.loop import DivergedError, TrainingState, make_state, state_from, train
from collapse_audit.version import __version__
from collapse_audit.words import printable

_TOO_LITTLE = re.compile("memory|Storage size")


@dataclass(frozen=True, slots=True, eq=False)
class TrainingResult:
    """What a run ended with."""

    folder: Path
    before: dict[str, Any]  # numbers of the head the run started from
    after: dict[str, Any]  # numbers of the head it ended with
    stopped: str  # why the run stopped early; empty if it did not

    @property
    def head(self) -> Path:
        """The head, for ``collapse-audit audit``."""
        return self.folder / "head.safetensors"


def run_training(
    config: HeadTrainingConfig, folder: str | Path, *, resume: bool = False, quiet: bool = False
) -> TrainingResult:
    """Train a head, and audit it before and after.

    The folder receives ``config.yaml`` (settings, versions, fingerprint of the data), ``log.jsonl``
    (losses, M and perplexity every ``audit_every`` steps), ``state.pt`` (to resume from),
    ``head.safetensors`` and ``audit.json``; with ``keep_every`` also a head before the first step
    and after every so many. A run that was killed and resumed ends with the same weights as an
    unbroken one on a CPU.

    Args:
        config: What to train.
        folder: Run folder; created if it does not exist.
        resume: Continue the run that the folder holds; a fresh folder starts one.
        quiet: Whether to show no progress bar.

    A folder that holds a run of another configuration, or one to resume, is refused with a
    :class:`ParameterError`.

    Returns:
        Numbers before and after. If the loss diverged, those of the last good state.

    Raises:
        ParameterError: If ``config`` is none.
    """
    if not isinstance(config, HeadTrainingConfig):
        raise ParameterError(
            f"run_training takes a HeadTrainingConfig, got {type(config).__name__}.",
            hint="HeadTrainingConfig.from_file(Path(name)) reads one.",
        )
    folder = Path(folder)
    with _enough_memory():
        data = load_data(config)
        state = _starting_state(config, data)  # may refuse: before the folder is this run's
        with sole_use(folder):
            _claim(folder, config, data, resume=resume)
            return _run(state, data, config, folder, quiet=quiet)


def _run(
    state: TrainingState, data: Data, config: HeadTrainingConfig, folder: Path, *, quiet: bool
) -> TrainingResult:
    """Start or continue in a folder that is this run's, to the end, and write what came out."""
    before = summarise(state.teacher, data, state.objective)
    saved = folder / "state.pt"
    if saved.exists():
        load_state(state, saved)
    else:
        if config.keep_every:
            _save_head(state, _kept(folder, state), config, data)
        save_state(state, saved)
    stopped = _train(state, data, config, folder, quiet=quiet)
    after = summarise(state.teacher, data, state.objective)
    result = TrainingResult(folder, before, after, stopped)
    _write_results(result, config, data, state)
    return result


def _train(
    state: TrainingState, data: Data, config: HeadTrainingConfig, folder: Path, *, quiet: bool
) -> str:
    """Train to the end; why it stopped earlier, if it did, with the last good state in place."""
    saved = folder / "state.pt"
    log = RunLog(folder / "log.jsonl", keep_to=state.iteration)
    try:
        train(
            state,
            data,
            config,
            on_audit=lambda now, losses: log.audit(now, data, losses),
            on_save=lambda now: save_state(now, saved),
            on_keep=lambda now: _save_head(now, _kept(folder, now), config, data),
            quiet=quiet,
        )
    except DivergedError as error:
        load_state(state, saved)
        stopped = f"{error}; the head is that of step {state.iteration}, the last good state"
        log.write({"iteration": state.iteration, "stopped": stopped})
        return stopped
    return ""


@contextmanager
def _enough_memory() -> Iterator[None]:
    """Turn memory that cannot be had, which is an error of many kinds, into one of the settings."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _TOO_LITTLE.search(str(error)):
            raise
        raise ParameterError(
            f"There is too little memory ({printable(' '.join(str(error).split()), 160)}).",
            hint="Lower k, d, hidden, views, pool, limit or `batch_size=N`.",
        ) from error


def _starting_state(config: HeadTrainingConfig, data: Data) -> TrainingState:
    if config.init is None:
        return make_state(config, data)
    student = load_network(Path(config.init), config, data.width, images=data.images)
    return state_from(student.to(pick_device(config.device)), config, data)


def _claim(folder: Path, config: HeadTrainingConfig, data: Data, *, resume: bool) -> None:
    """Make the folder this run's, or refuse to touch somebody else's."""
    path = folder / "config.yaml"
    if path.exists():
        _check_same(path, config, data)
        if not resume:
            raise ParameterError(
                f"{folder}: already holds a run.",
                hint="Add `resume=True`, or choose another folder.",
            )
        return
    if any(not entry.name.startswith(".") for entry in folder.iterdir()):
        raise ParameterError(
            f"{folder}: not empty, and not a run folder.", hint="Choose another folder."
        )
    content = {"config": config.to_dict(), "data_sha256": data.fingerprint, "versions": _versions()}
    write_text(path, yaml.safe_dump(content, sort_keys=False))


def _check_same(path: Path, config: HeadTrainingConfig, data: Data) -> None:
    content = read_settings(path)
    if not isinstance(content, dict) or not isinstance(content.get("config"), dict):
        raise CheckpointError(f"{path}: not the configuration of a run.")
    there = HeadTrainingConfig.from_mapping(content["config"], source=str(path)).to_dict()
    here = config.to_dict()
    changed = [f"{name} is {there[name]} there, {here[name]} here" for name in here
               if here[name] != there[name]]  # fmt: skip
    if changed:
        raise ParameterError(
            f"{path.parent}: belongs to another configuration: {'; '.join(changed)}.",
            hint="Choose another folder.",
        )
    if content.get("data_sha256") != data.fingerprint:
        raise ParameterError(
            f"{path.parent}: the data are not those the run began with.",
            hint="Restore them, or choose another folder.",
        )


def _write_results(
    result: TrainingResult, config: HeadTrainingConfig, data: Data, state: TrainingState
) -> None:
    _save_head(state, result.head, config, data)
    content = {
        "schema": "collapse-audit/training",
        "schema_version": "1.0",
        "tool": {"name": "collapse-audit", "version": __version__},
        "config": config.to_dict(),
        "iteration": state.iteration,
        "stopped": result.stopped or None,
        "before": result.before,
        "after": result.after,
    }
    write_text(result.folder / "audit.json", json.dumps(content, indent=1) + "\n")


def _kept(folder: Path, state: TrainingState) -> Path:
    return folder / f"checkpoint_step{state.iteration:07d}.safetensors"


def _save_head(state: TrainingState, path: Path, config: HeadTrainingConfig, data: Data) -> None:
    save_head(
        state.teacher,
        path,
        student=state.student,
        centre=state.objective.logit_centre,
        provenance=provenance(config, data.fingerprint, state.iteration),
    )


def provenance(config: HeadTrainingConfig, fingerprint: str, iteration: int) -> dict[str, str]:
    """Where a head came from, as strings for its metadata; of paths only the file names."""
    settings = config.to_dict()
    for name in ("data", "init", "data_root"):
        settings[name] = None if settings[name] is None else Path(settings[name]).name
    return {
        "tool": f"collapse-audit {__version__}",
        "config": json.dumps(settings),
        "data_sha256": fingerprint,
        "iteration": str(iteration),
    }


def _versions() -> dict[str, str]:
    return {
        "collapse-audit": __version__,
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
