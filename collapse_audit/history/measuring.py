"""Audit every checkpoint of a run: what is new, and nothing twice."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collapse_audit.errors import (
    CheckpointError,
    CollapseAuditWarning,
    ParameterError,
    PrototypeError,
    SourceError,
)
from collapse_audit.head_audit import audit_prototypes
from collapse_audit.history.answers import Answers, HeadState, State, state_of
from collapse_audit.history.changes import ONSET_SHARE
from collapse_audit.history.results import RunCheckpoint, RunHistory
from collapse_audit.history.run_files import RunFile, find_checkpoints
from collapse_audit.prototypes import DEFAULT_EPSILON, Branch, Prototypes, check_epsilon
from collapse_audit.remote.cache import HISTORY
from collapse_audit.remote.settings import RemoteSettings
from collapse_audit.similarity import Progress, silent
from collapse_audit.sources import resolve_source

if TYPE_CHECKING:
    Sources = str | Path | Sequence[str | Path]


def audit_history(
    sources: Sources,
    *,
    branch: Branch = "teacher",
    head: str | None = None,
    epsilon: float = DEFAULT_EPSILON,
    onset_share: float = ONSET_SHARE,
    device: str = "auto",
    jobs: int = 1,
    reuse: bool = True,
    settings: RemoteSettings | None = None,
    progress: Progress = silent,
) -> RunHistory:
    """Audit every checkpoint of a run.

    Answers are kept in the cache as they are found. A checkpoint whose size, inode and times are
    those of an earlier call is not opened; of any other the head is read, and measured if no head
    with these tensors was before. So a call that was killed is continued by the next.

    Args:
        sources: The folder of a run, a glob, or checkpoints: files, or folders that are one.
        branch: As for :func:`audit_source`.
        head: Likewise; all heads by default.
        epsilon: As for :func:`audit_source`.
        onset_share: A head begins to collapse where M / K falls below this share of the largest so
            far and stays there, above 0 and below 1; 0.9 is that of the monitor's first alarm.
        device: As for :func:`audit_source`.
        jobs: Checkpoints audited at a time.
        reuse: Whether to use the answers of earlier calls, and to keep these.
        settings: The cache; by default that of the environment.
        progress: Called with ("checkpoints", done, total) while it runs.

    Returns:
        The history. Checkpoints that cannot be audited are among its ``problems``.

    Raises:
        SourceError: If there is no checkpoint, or none can be audited.
        ParameterError: If a number is out of its range, or there is no such device.
    """
    auditor = _Auditor(branch, head, epsilon, onset_share, device, jobs, reuse, settings, progress)
    history = auditor.history(sources, auditor.audit(find_checkpoints(sources)))
    if len(history.problems) == len(history.checkpoints):
        number, first = len(history.problems), history.problems[0].problem
        raise SourceError(f"{history.source}: none of {number} can be audited. {first}")
    return history


def follow_history(
    sources: Sources,
    *,
    settle: float = 5.0,
    idle: float | None = None,
    **options: Any,
) -> Iterator[RunHistory]:
    """Audit the checkpoints of a run while it writes them; options are those of audit_history."""
    # A file is taken when size and times are unchanged for `settle` seconds and it reads whole; one
    # that does not is a problem until it changes. Ends after `idle` seconds without a new one.
    auditor = _Auditor(**options)
    if settle <= 0:
        raise ParameterError(f"settle must be above 0 seconds, got {settle}.")
    seen: dict[Path, tuple[State, float]] = {}
    audited: dict[Path, tuple[State, RunCheckpoint]] = {}
    last = time.monotonic()
    while idle is None or time.monotonic() - last < idle:
        try:
            files = find_checkpoints(sources)
        except SourceError:
            files = ()  # nothing yet
        settled = [file for file in files if _is_settled(file.path, seen, settle)]
        new = [f for f in settled if audited.get(f.path, ([],))[0] != seen[f.path][0]]
        for file, found in zip(new, auditor.audit(new), strict=True):
            if _is_settled(file.path, seen, settle):  # still: what was read is what is there
                audited[file.path] = (seen[file.path][0], found)
        if new:
            yield auditor.history(
                sources, [audited[file.path][1] for file in files if file.path in audited]
            )
            last = time.monotonic()
        time.sleep(settle / 4)


def _is_settled(path: Path, seen: dict[Path, tuple[State, float]], settle: float) -> bool:
    """Whether a checkpoint has been as it is for some seconds; what it is, is noted."""
    try:
        state, now = state_of(path), time.monotonic()
    except SourceError:  # gone again
        return False
    if path not in seen or seen[path][0] != state:
        seen[path] = (state, now)
    return now - seen[path][1] >= settle


@dataclass(frozen=True)
class _Auditor:
    """What is measured, and how: the options of :func:`audit_history`."""

    branch: Branch = "teacher"
    head: str | None = None
    epsilon: float = DEFAULT_EPSILON
    onset_share: float = ONSET_SHARE
    device: str = "auto"
    jobs: int = 1
    reuse: bool = True
    settings: RemoteSettings | None = None
    progress: Progress = silent

    def __post_init__(self) -> None:
        check_epsilon(self.epsilon)
        if not 0 < self.onset_share < 1:
            raise ParameterError(f"onset_share must be between 0 and 1, got {self.onset_share}.")
        if self.jobs < 1:
            raise ParameterError(f"jobs must be at least 1, got {self.jobs}.")

    @cached_property
    def answers(self) -> Answers:
        """Those of earlier calls, if they are wanted."""
        cache = (self.settings or RemoteSettings.from_environment()).cache_dir
        question = (self.branch, self.head, float(self.epsilon))
        return Answers(cache / HISTORY if self.reuse else None, question)

    def audit(self, files: Sequence[RunFile]) -> list[RunCheckpoint]:
        """Each checkpoint, in order; every answer is kept as soon as it is found."""
        found: list[RunCheckpoint] = []
        with warnings.catch_warnings(), ThreadPoolExecutor(self.jobs) as pool:
            # what was decided for the user is among the notes of a head, once for the run
            warnings.simplefilter("ignore", CollapseAuditWarning)
            for checkpoint in pool.map(self._audit, files):
                found.append(checkpoint)
                self.progress("checkpoints", len(found), len(files))
        return found

    def history(self, sources: Sources, checkpoints: Sequence[RunCheckpoint]) -> RunHistory:
        """All of them; the unnumbered last one is left out where it repeats the one before."""
        listed = sources if isinstance(sources, list | tuple) else [sources]
        first = Path(str(listed[0]))
        name = first.name if first.is_absolute() else str(listed[0])
        name += f" and {len(listed) - 1} more" if len(listed) > 1 else ""
        kept: list[RunCheckpoint] = []
        for one in checkpoints:
            if not (kept and one.file.number is None and one.heads and _same(one, kept[-1])):
                kept.append(one)
        return RunHistory(name, self.epsilon, self.onset_share, tuple(kept))

    def _audit(self, file: RunFile) -> RunCheckpoint:
        try:
            state = state_of(file.path)
            if (heads := self.answers.of_file(file.path, state)) is None:
                resolved = resolve_source(file.path)
                loaded = resolved.load(resolved.select(branch=self.branch, head=self.head))
                heads = self.answers.of_heads(file.path, state, loaded, self._measure)
        except (SourceError, CheckpointError, PrototypeError) as error:
            error.message = error.message.replace(str(file.path), file.name)
            return RunCheckpoint(file, problem=error)
        return RunCheckpoint(file, heads)

    def _measure(self, prototypes: Prototypes) -> HeadState:
        found = audit_prototypes(prototypes, epsilon=self.epsilon, sweep=False, device=self.device)
        return HeadState(found.head_report(), found.groups)


def _same(one: RunCheckpoint, other: RunCheckpoint) -> bool:
    """Whether the heads of two checkpoints have the same tensors."""
    digests = [[head.report.get("tensor_sha256") for head in c.heads] for c in (one, other)]
    return digests[0] == digests[1] and all(digests[0])
