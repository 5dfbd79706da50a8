"""PrototypeMonitor: the measurements of an audit, during a training."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from collapse_audit.errors import CollapseAuditError, CollapseAuditWarning, ParameterError
from collapse_audit.monitor.alarms import Alarms
from collapse_audit.monitor.incremental import Counted, IncrementalCover
from collapse_audit.monitor.observation import Alarm, BranchState, Observation
from collapse_audit.monitor.weights import Head, Stored, stored_weight, unit_rows
from collapse_audit.prototypes import DEFAULT_EPSILON, Prototypes

LogFunction = Callable[[Mapping[str, float], int], object]


class PrototypeMonitor:
    """Watches the prototypes of a head while somebody else trains it.

    Call :meth:`step` once per training step. Every ``every`` steps it counts the unique
    prototypes, exactly as an audit of the saved weights would; in between it costs nothing. Under
    torch.distributed only rank 0 looks, so the weights must be whole there. It never ends a
    training: what goes wrong in a look is an alarm.

        >>> layer = torch.nn.Linear(64, 32, bias=False)
        >>> monitor = PrototypeMonitor(layer, every=100)
        >>> monitor.step(loss=3.2).head.num_unique
        32
        >>> monitor.step() is None  # not a step at which it looks
        True

    Args:
        head: A module with a layer named ``last_layer`` or ``prototypes``, such a layer, its
            weight (k x d), or a function that returns the weight. The teacher's, if there are two.
        every: Steps between looks.
        epsilon: Cosine distance below which two prototypes are duplicates.
        student: The student's head, to be counted and compared too.
        temperature: Of the softmax over the logits shown to :meth:`step`; needed for the MLCD.
        log_fn: Called with (numbers by name, step) after each look, such as ``mlflow.log_metrics``.
        jsonl: File to which each look adds one line of JSON; ``run`` in it counts the monitors that
            have written to the file.
        alarms: Unique fractions; falling below one raises an alarm.
        on_alarm: Called with each alarm; by default it becomes a CollapseAuditWarning.
    """

    def __init__(
        self,
        head: Head,
        *,
        every: int = 100,
        epsilon: float = DEFAULT_EPSILON,
        student: Head | None = None,
        temperature: float | None = None,
        log_fn: LogFunction | None = None,
        jsonl: str | Path | None = None,
        alarms: Sequence[float] = (0.9, 0.5),
        on_alarm: Callable[[Alarm], object] | None = None,
    ) -> None:
        if every < 1:
            raise ParameterError(f"every must be at least 1, got {every}.")
        self._every = every
        self._head = stored_weight(head)
        self._student = None if student is None else stored_weight(student)
        self._covers = IncrementalCover(epsilon), IncrementalCover(epsilon)
        self._temperature = temperature
        self._log_fn = log_fn
        self._jsonl = None if jsonl is None else Path(jsonl)
        self._run = 0  # until the first line is written
        self._alarms = Alarms(alarms)
        self._on_alarm = on_alarm or _warn
        self._next_step = 0
        self._looked_at: int | None = None

    def step(
        self,
        *,
        step: int | None = None,
        loss: float | Tensor | None = None,
        logits: Tensor | None = None,
        features: Tensor | None = None,
    ) -> Observation | None:
        """Count a training step, and look at the prototypes if it is time to.

        Args:
            step: Number of the step; by default the calls are counted from 0.
            loss: The loss of the step.
            logits: The head's output for a batch (n x k), before centre and temperature.
            features: Instead of the logits, what enters the last layer (n x d).

        Returns:
            What was seen; ``None`` at steps in between and on other ranks than 0.
        """
        now = self._next_step if step is None else step
        self._next_step = now + 1
        if not self.is_due(now) or not _is_main_process():
            return None
        self._looked_at = now
        return self.look(now, loss=loss, logits=logits, features=features)

    def is_due(self, step: int) -> bool:
        """Whether :meth:`step` would look: the same on every rank, and once for each number."""
        # Gradient accumulation calls several times with one number.
        return step % self._every == 0 and step != self._looked_at

    @torch.no_grad()
    def look(
        self,
        step: int,
        *,
        loss: float | Tensor | None = None,
        logits: Tensor | None = None,
        features: Tensor | None = None,
    ) -> Observation | None:
        """Look at the prototypes now, whatever the step.

        Args:
            step: Number of the step.
            loss: As for :meth:`step`.
            logits: As for :meth:`step`.
            features: As for :meth:`step`.

        Returns:
            What was seen; ``None``, and an alarm, if that failed, as with weights that hold NaN or
            a row of zeros.
        """
        try:
            observation = self._observe(step, loss, logits, features)
        except Exception as error:  # noqa: BLE001 - a monitor never ends a training
            self._sound(self._alarms.problem("not_auditable", step, error))
            return None
        self._alarms.problem("not_auditable", step, None)
        self._sound((*observation.alarms, *self._tell(observation)))
        return observation

    def _observe(
        self, step: int, loss: float | Tensor | None, logits: Tensor | None, features: Tensor | None
    ) -> Observation:
        started = perf_counter()
        stored = self._head()
        counted = self._covers[0].look(stored)
        student = self._look_at_student()
        k, value = len(counted.groups), _number(loss)
        alarms = self._alarms.check(step, k, counted.num_unique, value)
        mlcd, problem = None, None
        try:
            mlcd = self._mlcd(stored, counted.groups, logits, features)
        except CollapseAuditError as error:  # such as logits that hold NaN: the counts stand
            problem = error
        return Observation(
            step=step,
            k=k,
            head=_state(counted),
            student=None if student is None else _state(student[1]),
            student_cosine=None if student is None else _mean_cosine(student[0], stored),
            loss=value,
            mlcd=mlcd,
            alarms=(*alarms, *self._alarms.problem("no_mlcd", step, problem)),
            seconds=perf_counter() - started,
        )

    def _look_at_student(self) -> tuple[Stored, Counted] | None:
        if self._student is None:
            return None
        stored = self._student()
        return stored, self._covers[1].look(stored)

    def _mlcd(
        self,
        stored: Stored,
        groups: npt.NDArray[np.int64],
        logits: Tensor | None,
        features: Tensor | None,
    ) -> dict[str, float] | None:
        """Latent class distribution of one batch, over all and over the unique prototypes."""
        if logits is None and features is None:
            return None
        if self._temperature is None:
            raise ParameterError(
                "the MLCD of a batch needs the temperature of the head.",
                hint="Pass `temperature=0.04` to PrototypeMonitor, or show it no logits.",
            )
        from collapse_audit.mlcd import MLCDAccumulator

        prototypes = Prototypes.from_weight(stored[0], scale=stored[1])
        accumulator = MLCDAccumulator(prototypes, temperature=self._temperature, groups=groups)
        if logits is not None:
            accumulator.update_logits(logits.detach().float())
        elif features is not None:
            accumulator.update(features.detach().float())
        found = accumulator.result()
        levels = {"k": found.k, "m": found.m}
        return {
            "n": found.n,
            "mutual_information": found.mutual_information,
            "mean_entropy": found.mean_entropy,
            **{f"{name}.entropy": level.entropy for name, level in levels.items() if level},
            **{f"{name}.perplexity": level.perplexity for name, level in levels.items() if level},
        }

    def _tell(self, observation: Observation) -> tuple[Alarm, ...]:
        problem = None
        for write in (self._write_line, self._log):
            try:
                write(observation)
            except Exception as error:  # noqa: BLE001 - a full disk, a tracker that is not reached
                problem = error
        return self._alarms.problem("not_written", observation.step, problem)

    def _write_line(self, observation: Observation) -> None:
        """Add a line to the file, whole or not at all."""
        if self._jsonl is None:
            return
        self._run = self._run or _begin_run(self._jsonl)
        end = self._jsonl.stat().st_size if self._jsonl.is_file() else 0
        try:
            with self._jsonl.open("a", encoding="utf-8") as file:
                line = {"run": self._run, **observation.to_dict()}
                file.write(json.dumps(line, allow_nan=False) + "\n")
        except OSError:
            if self._jsonl.is_file():
                os.truncate(self._jsonl, end)
            raise

    def _log(self, observation: Observation) -> None:
        if self._log_fn is not None:
            self._log_fn(observation.to_scalars(), observation.step)

    def _sound(self, alarms: Sequence[Alarm]) -> None:
        for alarm in alarms:
            self._on_alarm(alarm)


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


def _state(counted: Counted) -> BranchState:
    k, turned = len(counted.groups), counted.turned
    quantiles: Mapping[str, Any] | None = None
    if counted.audit is not None:
        quantiles = counted.audit.head_report()["nearest_cosine"]
    return BranchState(
        num_unique=counted.num_unique,
        unique_fraction=counted.num_unique / k,
        components=counted.components,
        largest=counted.largest,
        compared=counted.compared,
        nearest_cosine=quantiles,
        turned_mean=None if turned is None else float(torch.rad2deg(turned.mean())),
        turned_max=None if turned is None else float(torch.rad2deg(turned.max())),
    )


def _number(loss: float | Tensor | None) -> float | None:
    return float(loss.detach()) if isinstance(loss, Tensor) else loss


def _mean_cosine(student: Stored, teacher: Stored) -> float | None:
    rows = slice(None)
    if student[0].shape != teacher[0].shape:
        return None
    return float((unit_rows(student, rows) * unit_rows(teacher, rows)).sum(dim=1).mean())


def _warn(alarm: Alarm) -> None:
    # 6: the line of the training loop that called step, past the decorator of look
    warnings.warn(alarm.message, CollapseAuditWarning, stacklevel=6)


def _is_main_process() -> bool:
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return True
    return distributed.get_rank() == 0
