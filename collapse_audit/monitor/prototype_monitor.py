"""PrototypeMonitor: the measurements of an audit, during a training."""

from __future__ import annotations

import json
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

from collapse_audit.errors import CollapseAuditWarning, ParameterError, PrototypeError
from collapse_audit.monitor.alarms import Alarms
from collapse_audit.monitor.incremental import Counted, IncrementalCover
from collapse_audit.monitor.observation import Alarm, BranchState, Observation
from collapse_audit.monitor.weights import Head, Stored, stored_weight, unit_rows
from collapse_audit.prototypes import Prototypes

LogFunction = Callable[[Mapping[str, float], int], object]


class PrototypeMonitor:
    """Watches the prototypes of a head while somebody else trains it.

    Call :meth:`step` once per training step. Every ``every`` steps it counts the unique
    prototypes, exactly as an audit of the saved weights would; in between it costs nothing. Under
    torch.distributed only rank 0 looks, so the weights must be whole there.

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
        log_fn: Called with (numbers by name, step) after each look, such as ``wandb.log``.
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
        epsilon: float = 0.025,
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
        # gradient accumulation calls several times with one number
        if now % self._every or now == self._looked_at or not _is_main_process():
            return None
        self._looked_at = now
        return self.look(now, loss=loss, logits=logits, features=features)

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
            What was seen; ``None``, and an alarm, if the weights cannot be audited (NaN, or a row
            of zeros): a monitor never ends a training.
        """
        started = perf_counter()
        try:
            stored = self._head()
            counted = self._covers[0].look(stored)
            student = self._look_at_student()
        except PrototypeError as error:
            self._on_alarm(Alarm(step, "not_auditable", f"step {step}: {error}"))
            return None
        k, value = len(counted.groups), _number(loss)
        alarms = self._alarms.check(step, k, counted.num_unique, value)
        observation = Observation(
            step=step,
            k=k,
            head=_state(counted),
            student=None if student is None else _state(student[1]),
            student_cosine=None if student is None else _mean_cosine(student[0], stored),
            loss=value,
            mlcd=self._mlcd(stored, counted.groups, logits, features),
            alarms=alarms,
            seconds=perf_counter() - started,
        )
        self._tell(observation)
        return observation

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
                hint="Pass PrototypeMonitor(..., temperature=0.04), or show it no logits.",
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

    def _tell(self, observation: Observation) -> None:
        if self._jsonl is not None:
            self._run = self._run or _begin_run(self._jsonl)
            with self._jsonl.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps({"run": self._run, **observation.to_dict()}) + "\n")
        if self._log_fn is not None:
            self._log_fn(observation.to_scalars(), observation.step)
        for alarm in observation.alarms:
            self._on_alarm(alarm)


def _begin_run(path: Path) -> int:
    """Number of the next run in a file; a line that an earlier one did not finish is ended."""
    text, runs = path.read_text(encoding="utf-8") if path.is_file() else "", 0
    for line in text.splitlines():
        with suppress(ValueError):
            runs = max(runs, json.loads(line).get("run", 1))
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


def _mean_cosine(student: Stored, teacher: Stored) -> float:
    rows = slice(None)
    return float((unit_rows(student, rows) * unit_rows(teacher, rows)).sum(dim=1).mean())


def _warn(alarm: Alarm) -> None:
    # 6: the line of the training loop that called step, past the decorator of look
    warnings.warn(alarm.message, CollapseAuditWarning, stacklevel=6)


def _is_main_process() -> bool:
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return True
    return distributed.get_rank() == 0
