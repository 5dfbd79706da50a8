"""Where the numbers of a look go: files, experiment trackers, functions."""

from __future__ import annotations

import csv
import io
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias, cast

from collapse_audit.errors import CollapseAuditError, ParameterError
from collapse_audit.files import write_atomically
from collapse_audit.monitor.observation import Alarm, Observation

LogFunction: TypeAlias = Callable[[Mapping[str, float], int], object]
#: ``FILE.csv``, ``FILE.jsonl``, ``tensorboard:FOLDER``, ``wandb``, ``mlflow``, ``trackio`` (each
#: with ``:NAME`` if a run has to be begun), or a function of (numbers by name, step).
LogTo: TypeAlias = str | Path | LogFunction


class Tracker(ABC):
    """Gets every look and every alarm; it may fail, and opens nothing before its first look."""

    @abstractmethod
    def log(self, seen: Observation) -> None:
        """Keep the numbers of a look."""

    def alarm(self, alarm: Alarm) -> None:  # noqa: B027 - most have no place for one
        """Tell an alarm, where there is a place for one."""


class _Function(Tracker):
    def __init__(self, function: LogFunction) -> None:
        self._function = function

    def log(self, seen: Observation) -> None:
        self._function(seen.to_scalars(), seen.step)


class _TensorBoard(Tracker):
    def __init__(self, folder: str) -> None:
        self._make = imported("torch.utils.tensorboard", "tensorboard").SummaryWriter
        self._folder, self._writer = folder or None, cast("Any", None)

    def log(self, seen: Observation) -> None:
        self._writer = writer = self._writer or self._make(self._folder)
        for name, value in seen.to_scalars().items():
            writer.add_scalar(name, value, seen.step)
        writer.flush()  # at the end of a program it would not be


class _WeightsAndBiases(Tracker):
    def __init__(self, project: str) -> None:
        self._wandb, self._project, self._run = (
            imported("wandb"),
            project or None,
            cast("Any", None),
        )

    def log(self, seen: Observation) -> None:
        if self._run is None:
            self._run = self._wandb.run or self._wandb.init(project=self._project)
            # it drops what comes with a step behind its own count: an axis for these numbers
            self._run.define_metric("prototypes/*", step_metric="prototypes/step")
        self._run.log({**seen.to_scalars(), "prototypes/step": seen.step})


class _MLflow(Tracker):
    def __init__(self, experiment: str) -> None:
        self._mlflow, self._experiment = imported("mlflow"), experiment

    def log(self, seen: Observation) -> None:
        if self._experiment and self._mlflow.active_run() is None:
            self._mlflow.set_experiment(self._experiment)
        self._mlflow.log_metrics(seen.to_scalars(), step=seen.step)  # begins a run if there is none


class _Trackio(Tracker):
    def __init__(self, project: str) -> None:
        self._trackio, self._project = imported("trackio"), project

    def log(self, seen: Observation) -> None:
        if self._project:
            self._trackio.init(project=self._project)
            self._project = ""
        self._trackio.log(seen.to_scalars(), step=seen.step)

    def alarm(self, alarm: Alarm) -> None:
        self._trackio.alert(title=alarm.kind, text=alarm.message)


class _JsonLines(Tracker):
    """All that was seen, one line for each look; a line is written whole or not at all."""

    def __init__(self, path: str) -> None:
        self._path, self._run = Path(path), 0  # until the first line is written

    def log(self, seen: Observation) -> None:
        self._run = self._run or _begin_run(self._path)
        end = self._path.stat().st_size if self._path.is_file() else 0
        try:
            with self._path.open("a", encoding="utf-8") as file:
                line = {"run": self._run, **seen.to_dict()}
                file.write(json.dumps(line, allow_nan=False) + "\n")
        except OSError:
            if self._path.is_file():
                os.truncate(self._path, end)
            raise


class _Csv(Tracker):
    """A row for each look; what only some looks measure is empty in the others."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def log(self, seen: Observation) -> None:
        rows: list[Mapping[str, Any]] = []
        if self._path.is_file():
            with self._path.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file))
        rows.append({"step": seen.step, **seen.to_scalars("")})
        text = io.StringIO()
        writer = csv.DictWriter(text, list(dict.fromkeys(key for row in rows for key in row)))
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(self._path, text.getvalue().encode())


_FILES: Mapping[str, Callable[[str], Tracker]] = {".csv": _Csv, ".jsonl": _JsonLines}
_NAMED: Mapping[str, Callable[[str], Tracker]] = {
    "tensorboard": _TensorBoard,
    "wandb": _WeightsAndBiases,
    "mlflow": _MLflow,
    "trackio": _Trackio,
}


def trackers(log_to: LogTo | Sequence[LogTo] | None) -> tuple[Tracker, ...]:
    """The trackers that were asked for; a ParameterError for a name that is none."""
    # A CollapseAuditError if the package of one is not installed.
    if log_to is None:
        return ()
    if isinstance(log_to, Sequence) and not isinstance(log_to, str):
        return tuple(_tracker(one) for one in log_to)
    return (_tracker(log_to),)


def imported(module: str, package: str = "") -> Any:
    """An optional module; a CollapseAuditError that says what to install."""
    package = package or module
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        raise CollapseAuditError(
            f"{package} is not installed.", hint=f"pip install {package}"
        ) from error


def _tracker(log_to: LogTo) -> Tracker:
    if isinstance(log_to, str | Path):
        name, _, argument = str(log_to).partition(":")
        if isinstance(log_to, str) and name in _NAMED:
            return _NAMED[name](argument)
        if make := _FILES.get(Path(log_to).suffix):
            return make(str(log_to))
    elif callable(log_to):
        return _Function(log_to)
    raise ParameterError(
        f"log_to={log_to!r} is no tracker.",
        hint=f"Take a file ({', '.join(_FILES)}), {', '.join(_NAMED)}, or a function.",
    )


def _begin_run(path: Path) -> int:
    """Number of the next run in a file; a line that an earlier one did not finish is ended."""
    text, runs = path.read_text("utf-8", errors="replace") if path.is_file() else "", 0
    for line in text.splitlines():
        with suppress(ValueError, AttributeError, RecursionError):
            run = json.loads(line).get("run", 1)
            runs = max(runs, run if type(run) is int and run < 1 << 63 else 0)
    if text and not text.endswith("\n"):
        with path.open("a", encoding="utf-8") as stream:
            stream.write("\n")
    return runs + 1
