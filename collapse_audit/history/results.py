"""What became of the heads of a run, checkpoint by checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from collapse_audit.errors import CollapseAuditError
from collapse_audit.history.answers import HeadState
from collapse_audit.history.changes import Merge, find_merges, find_onset
from collapse_audit.history.run_files import RunFile
from collapse_audit.report.documents import (
    HISTORY_SCHEMA,
    SCHEMA_VERSION,
    TOOL,
    HeadHistoryDocument,
    HistoryDocument,
)
from collapse_audit.report.history_text import history_to_csv, history_to_table
from collapse_audit.report.html import history_to_html
from collapse_audit.report.json_text import to_json

#: Merges between two neighbours, and prototypes of a merge, that a document names.
_LARGEST: Final = 20


@dataclass(frozen=True, slots=True, eq=False)
class RunCheckpoint:
    """One checkpoint of a run: its heads, or why there are none.

    Attributes:
        file: Where it is, and its step or epoch.
        heads: Its audited heads, in file order.
        problem: Why it was skipped; ``None`` if it was not.
    """

    file: RunFile
    heads: tuple[HeadState, ...] = ()
    problem: CollapseAuditError | None = None


@dataclass(frozen=True, slots=True, eq=False)
class HeadHistory:
    """One head of a run.

    Attributes:
        name: Its name.
        branch: Its branch, if it has one.
        points: The checkpoints that hold it, in order, each with its state.
        onset: Where it began to collapse: the first checkpoint whose M / K is below a share of the
            largest so far, as that of all later ones is; ``None`` if it did not. Only the last
            checkpoints of one K are looked at.
        notes: What a reader should know.
    """

    name: str
    branch: str | None
    points: tuple[tuple[RunFile, HeadState], ...]
    onset: RunFile | None
    notes: tuple[str, ...]

    def merges(self) -> Iterator[tuple[RunFile, RunFile, list[Merge]]]:
        """Neighbours of equal K, and the prototypes that merged between them, largest first.

        Yields:
            The earlier checkpoint, the later one, and the merges, if there are any.
        """
        for (before, old), (after, new) in pairwise(self.points):
            if len(old.groups) == len(new.groups) and (
                found := find_merges(old.groups, new.groups)
            ):
                yield before, after, found


@dataclass(frozen=True, slots=True, eq=False)
class RunHistory:
    """Result of :func:`audit_history`.

    Attributes:
        source: What was audited.
        epsilon: Cosine distance below which two prototypes are duplicates.
        onset_share: Share of the largest M / K so far below which a head has begun to collapse.
        checkpoints: Every checkpoint, in the order of step or epoch.
    """

    source: str
    epsilon: float
    onset_share: float
    checkpoints: tuple[RunCheckpoint, ...]

    @property
    def heads(self) -> tuple[HeadHistory, ...]:
        """Each head by name and branch, in the order in which they first appear."""
        points: dict[tuple[str, str | None], list[tuple[RunFile, HeadState]]] = {}
        for checkpoint in self.checkpoints:
            for head in checkpoint.heads:
                key = (head.report["name"], head.report["branch"])
                points.setdefault(key, []).append((checkpoint.file, head))
        return tuple(self._head(*key, tuple(held)) for key, held in points.items())

    @property
    def problems(self) -> tuple[RunCheckpoint, ...]:
        """The checkpoints that could not be audited, and were skipped."""
        return tuple(one for one in self.checkpoints if one.problem is not None)

    def to_dict(self) -> HistoryDocument:
        """The history as ``--format json`` prints it."""
        return {
            "schema": HISTORY_SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "tool": TOOL.copy(),
            "source": self.source,
            "parameters": {"epsilon": self.epsilon, "rule": "greedy", "certified": True},
            "onset_share": self.onset_share,
            "checkpoints": len(self.checkpoints),
            "heads": [_head_document(head) for head in self.heads],
            "problems": [
                {
                    "file": one.file.name,
                    "type": type(one.problem).__name__,
                    "message": one.problem.message,
                    "hint": one.problem.hint,
                }
                for one in self.checkpoints
                if one.problem is not None
            ],
        }

    def to_json(self) -> str:
        """The history as JSON."""
        return to_json(self.to_dict())

    def to_csv(self) -> str:
        """One row for each head of each checkpoint."""
        return history_to_csv(self.to_dict())

    def to_html(self) -> str:
        """The history as one self-contained HTML page."""
        return history_to_html(self.to_dict())

    def __repr__(self) -> str:
        count = f"{len(self.checkpoints)} checkpoints, {len(self.heads)} heads"
        return f"RunHistory({self.source!r:.80}, {count}, epsilon={self.epsilon:g})"

    def __str__(self) -> str:
        return history_to_table(self.to_dict())

    def _head(
        self, name: str, branch: str | None, points: tuple[tuple[RunFile, HeadState], ...]
    ) -> HeadHistory:
        sizes = [head.report["k"] for _, head in points]
        start = max((i + 1 for i, (a, b) in enumerate(pairwise(sizes)) if a != b), default=0)
        fractions = [head.report["unique_fraction"] for _, head in points[start:]]
        at = find_onset(fractions, self.onset_share)
        notes = list(dict.fromkeys(n for _, head in points for n in head.report.get("notes", ())))
        if start:
            notes.append(
                f"K is {sizes[start]:,} from {points[start][0].label} on and was "
                f"{sizes[start - 1]:,} before, so the onset is looked for from there on"
            )
        if missing := sum(1 for one in self.checkpoints if one.heads) - len(points):
            notes.append(
                f"{missing} of the audited checkpoints without this head; "
                f"the first that has it is {points[0][0].label}"
            )
        onset = None if at is None else points[start + at][0]
        return HeadHistory(name, branch, points, onset, tuple(notes))


def _head_document(head: HeadHistory) -> HeadHistoryDocument:
    return {
        "name": head.name,
        "branch": head.branch,
        "onset": None if head.onset is None else head.onset.name,
        "points": [
            {
                "file": file.name,
                "label": file.label,
                "number": file.number,
                "unit": file.unit,
                "head": state.report,
            }
            for file, state in head.points
        ],
        "merges": [
            {
                "before": before.name,
                "after": after.name,
                "merges": len(merges),
                "prototypes": sum(len(merge.prototypes) for merge in merges),
                "largest": [
                    {
                        "size": len(merge.prototypes),
                        "groups": len(merge.parts),
                        "parts": list(merge.parts[:_LARGEST]),
                        "prototypes": merge.prototypes[:_LARGEST].tolist(),
                    }
                    for merge in merges[:_LARGEST]
                ],
            }
            for before, after, merges in head.merges()
        ],
        "notes": list(head.notes),
    }
