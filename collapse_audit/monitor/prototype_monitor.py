"""PrototypeMonitor: the measurements of an audit, during a training."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter

import torch
from torch import Tensor

from collapse_audit.errors import CollapseAuditError, CollapseAuditWarning, ParameterError
from collapse_audit.monitor.alarms import Alarms
from collapse_audit.monitor.batch import Shown, mlcd_of_batch
from collapse_audit.monitor.causes import (
    ONE_STORAGE,
    causes_in_head,
    causes_in_training,
    targets_uniform,
)
from collapse_audit.monitor.incremental import Counted, IncrementalCover
from collapse_audit.monitor.observation import Alarm, AlarmKind, BranchState, Observation
from collapse_audit.monitor.ranks import (
    attempt,
    from_main,
    is_distributed,
    is_main,
    result,
    whole,
)
from collapse_audit.monitor.trackers import LogTo, trackers
from collapse_audit.monitor.weights import Head, WatchedHead
from collapse_audit.prototypes import DEFAULT_EPSILON


@dataclass(slots=True, eq=False)
class _Seen:
    """What a look found in one head."""

    counted: Counted
    causes: dict[AlarmKind, str | None] = field(default_factory=dict)
    mlcd: dict[str, float] | None = None
    no_mlcd: Exception | None = None


class PrototypeMonitor:
    """Watches the prototypes of a head while somebody else trains it.

    Call :meth:`step` once per training step. Every ``every`` steps it counts the unique
    prototypes, exactly as an audit of the saved weights would; in between it costs nothing. Under
    torch.distributed only rank 0 looks. Weights that are sharded (FSDP2, any DTensor) are gathered
    for it, one head at a time: then every rank has to call :meth:`step`. It never ends a training:
    what goes wrong in a look is an alarm.

        >>> layer = torch.nn.Linear(64, 32, bias=False)
        >>> monitor = PrototypeMonitor(layer, every=100)
        >>> monitor.step(loss=3.2).head.num_unique
        32
        >>> monitor.step() is None  # not a step at which it looks
        True

    Args:
        head: A module with a layer named ``last_layer`` or ``prototypes``, such a layer, its
            weight (k x d), or a function that returns the weight and is called on every rank. The
            teacher's, if there are two.
        every: Steps between looks.
        epsilon: Cosine distance below which two prototypes are duplicates.
        student: The student's head, to be counted and compared too.
        temperature: Of the softmax over the logits shown to :meth:`step`; needed for the MLCD.
        centre: What is taken from those logits before the temperature (k values), or a function
            that returns it; for a centre that a training replaces at each step, a function.
        log_to: Where each look goes: ``FILE.csv``, ``FILE.jsonl`` (with the alarms, and in ``run``
            the count of the monitors that have written to the file), ``tensorboard:FOLDER``,
            ``wandb``, ``mlflow`` or ``trackio`` (the run that is active, or ``wandb:PROJECT``), a
            function of (numbers by name, step), or several of these.
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
        centre: Tensor | Callable[[], Tensor] | None = None,
        log_to: LogTo | Sequence[LogTo] | None = None,
        alarms: Sequence[float] = (0.9, 0.5),
        on_alarm: Callable[[Alarm], object] | None = None,
    ) -> None:
        if every < 1:
            raise ParameterError(f"every must be at least 1, got {every}.")
        self._every = every
        self._heads = [WatchedHead(one) for one in ([head] if student is None else [head, student])]
        self._covers = [IncrementalCover(epsilon) for _ in self._heads]
        self._temperature = temperature
        self._centre = centre
        self._trackers = trackers(log_to)
        self._alarms = Alarms(alarms)
        self._on_alarm = on_alarm or _warn
        self._next_step: int | None = None  # until the first one
        self._looked_at: int | None = None
        self._behind = 0  # steps that this rank counts fewer than the one that looks

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
        now = step if step is not None else self._next_step or 0
        if is_distributed():
            self._agree(now)
        self._next_step = now + 1
        if not self.is_due(now):
            return None
        self._looked_at = now
        return self.look(now, loss=loss, logits=logits, features=features)

    def is_due(self, step: int) -> bool:
        """Whether :meth:`step` would look: the same on every rank, and once for each number."""
        # Gradient accumulation calls several times with one number.
        return (step + self._behind) % self._every == 0 and step != self._looked_at

    def _agree(self, now: int) -> None:
        """Let all ranks of a sharded head look at the steps at which its first one does."""
        # Where a resumed training counts from another step, one rank alone would ask for the shards
        # of the others, and wait. A function is asked once; a module may be sharded at any time.
        for head in self._heads:
            is_new = head.mesh is None and (self._next_step is None or not head.is_function)
            if is_new and (mesh := head.find_mesh()) is not None:
                start, self._every = from_main(mesh, now, self._every)
                self._behind = start - now

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
        started = perf_counter()
        # Every rank comes by each collective in here, whatever goes wrong on one: problems wait.
        shown = attempt(lambda: self._shown(loss, logits, features))
        found = [attempt(partial(self._look_at, i, shown)) for i in range(len(self._heads))]
        if not is_main(self._heads[0].mesh):
            return None
        seen = attempt(lambda: self._observation(step, result(shown), found, started))
        if isinstance(seen, Exception):
            self._sound(self._alarms.problem("not_auditable", step, seen))
            return None
        self._alarms.problem("not_auditable", step, None)
        self._sound((*seen.alarms, *self._tell(seen)))
        return seen

    def _shown(
        self, loss: float | Tensor | None, logits: Tensor | None, features: Tensor | None
    ) -> Shown:
        centre = self._centre() if callable(self._centre) else self._centre
        tensors = [None if t is None else whole(t.detach()) for t in (logits, features, centre)]
        number = float(whole(loss.detach())) if isinstance(loss, Tensor) else loss
        return Shown(number, *tensors)

    def _look_at(self, which: int, shown: Shown | Exception) -> _Seen:
        head = self._heads[which]
        stored = head.gather()
        if not is_main(self._heads[0].mesh):
            raise CollapseAuditError("another rank looks.")
        seen = _Seen(self._covers[which].look(stored))
        if head is self._heads[-1]:  # the student, or the only one
            seen.causes = causes_in_training(
                stored,
                seen.counted.turned,
                stuck=self._alarms.at_ln_k,
                fixed_scale=head.has_fixed_scale(),
            )
        if which == 1:
            seen.causes["one_storage"] = ONE_STORAGE if head.shares_with(self._heads[0]) else None
            return seen
        shown = result(shown)
        seen.causes |= causes_in_head(stored, seen.counted, shown.centre)
        try:
            seen.mlcd = mlcd_of_batch(stored, seen.counted.groups, shown, self._temperature)
        except CollapseAuditError as error:  # such as logits that hold NaN: the counts stand
            seen.no_mlcd = error
        if seen.mlcd is not None:
            uniform = targets_uniform(seen.mlcd["mean_entropy"], len(seen.counted.groups))
            seen.causes["targets_uniform"] = uniform
        return seen

    def _observation(
        self, step: int, shown: Shown, found: Sequence[_Seen | Exception], started: float
    ) -> Observation:
        head, *students = map(result, found)
        k, counted = len(head.counted.groups), head.counted
        causes = head.causes | (students[0].causes if students else {})
        return Observation(
            step=step,
            k=k,
            head=_state(counted),
            student=_state(students[0].counted) if students else None,
            student_cosine=self._covers[0].mean_cosine(self._covers[1]) if students else None,
            loss=shown.loss,
            mlcd=head.mlcd,
            alarms=(
                *self._alarms.check(step, k, counted.num_unique, shown.loss),
                *self._alarms.causes(step, causes),
                *self._alarms.problem("no_mlcd", step, head.no_mlcd),
            ),
            seconds=perf_counter() - started,
        )

    def _tell(self, observation: Observation) -> tuple[Alarm, ...]:
        problem = None
        for tracker in self._trackers:
            try:
                tracker.log(observation)
            except Exception as error:  # noqa: BLE001 - a full disk, a tracker that is not reached
                problem = error
        return self._alarms.problem("not_written", observation.step, problem)

    def _sound(self, alarms: Sequence[Alarm]) -> None:
        for alarm in alarms:
            for tracker in self._trackers:
                with suppress(Exception):
                    tracker.alarm(alarm)
            self._on_alarm(alarm)


def _state(counted: Counted) -> BranchState:
    k, turned = len(counted.groups), counted.turned
    return BranchState(
        num_unique=counted.num_unique,
        unique_fraction=counted.num_unique / k,
        n_eff=counted.n_eff,
        components=counted.components,
        largest=counted.largest,
        compared=counted.compared,
        nearest_cosine=counted.nearest_cosine,
        turned_mean=None if turned is None else float(torch.rad2deg(turned.mean())),
        turned_max=None if turned is None else float(torch.rad2deg(turned.max())),
    )


def _warn(alarm: Alarm) -> None:
    # 6: the line of the training loop that called step, past the decorator of look
    warnings.warn(alarm.message, CollapseAuditWarning, stacklevel=6)
