"""Audit the checkpoints whose counts are published, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from collapse_audit.auditing import audit_source
from collapse_audit.errors import CollapseAuditError, ReportError
from collapse_audit.files import read_json, write_json
from collapse_audit.head_audit import CollapseAudit
from collapse_audit.manifest import CheckpointEntry
from collapse_audit.prototypes import DEFAULT_EPSILON
from collapse_audit.remote.reporting import Reporter
from collapse_audit.remote.settings import RemoteSettings
from collapse_audit.report.columns import pipe_table

_SCHEMA = "collapse-audit/reproduction"
_TITLES = ("id", "head", "K", "published M", "measured M (greedy)", "components", "epsilon")


@dataclass(frozen=True, slots=True)
class Measured:
    """One head as measured here."""

    head: str
    branch: str | None  # if the file has two
    k: int
    greedy: int  # unique prototypes by the greedy cover, in index order
    components: int  # by single linkage


@dataclass(frozen=True, slots=True)
class ReproductionRow:
    """One checkpoint of the manifest: published beside measured."""

    id: str
    family: str
    epsilon: float  # cosine distance of the measurement
    published: tuple[dict[str, Any], ...]  # with sources; epsilon and k where those state them
    measured: tuple[Measured, ...] = ()  # the heads; empty if there is a problem
    problem: str = ""  # why it could not be measured; empty if it was


def reproduce(
    entries: Iterable[CheckpointEntry],
    state: Path,
    settings: RemoteSettings,
    reporter: Reporter,
    *,
    epsilon: float = DEFAULT_EPSILON,
    checkpoint_dir: Path | None = None,
    explain: Callable[[CollapseAuditError], str] = str,
) -> tuple[ReproductionRow, ...]:
    """Measure every row that is not in the state yet; rows with a problem are tried again."""
    # the state, a JSON file, is written after every row; explain: what is told of an error
    rows = dict(_done(state))
    result = []
    for entry in entries:
        row = rows.get(entry.id)
        if row is None or row.problem or row.epsilon != epsilon:
            reporter.note(f"{entry.id}: measuring")
            row = _row(entry, epsilon)
            try:
                audits = audit_source(
                    entry.id,
                    epsilon=epsilon,
                    sweep=False,
                    nearest=False,
                    checkpoint_dir=checkpoint_dir,
                    settings=settings,
                    reporter=reporter,
                )
                row = replace(row, measured=tuple(map(_counts, audits)))
            except CollapseAuditError as error:  # it must not stop the others
                problem = explain(error).removeprefix(f"{entry.id}: ")
                reporter.note(f"{entry.id}: {problem}")
                row = replace(row, problem=problem)
            rows[entry.id] = row
            write_json(state, to_document(rows.values()))
        result.append(row)
    return tuple(result)


def to_document(rows: Iterable[ReproductionRow]) -> dict[str, Any]:
    """The rows in plain values, as the state and ``--format json`` hold them."""
    return {"schema": _SCHEMA, "schema_version": "1.0", "rows": [asdict(row) for row in rows]}


def to_markdown(rows: Sequence[ReproductionRow]) -> str:
    """The table published against measured, one line per head, without a line break at the end."""
    cells = []
    for row in rows:
        if row.problem:
            problem = f"not measured: {row.problem}"
            cells.append((row.id, problem, "", _published(row), "", "", ""))
        for m in row.measured:
            numbers = (str(m.greedy), str(m.components), str(row.epsilon))
            cells.append((row.id, m.head, str(m.k), _published(row, m.k), *numbers))
    return "\n".join(pipe_table(_TITLES, cells, "< < > > > > >"))


def _published(row: ReproductionRow, k: int | None = None) -> str:
    """The published counts of a row, of heads with another K left out."""
    return "; ".join(
        f"{count['unique']} ({count['source']}{', second hand' * count['second_hand']})"
        for count in row.published
        if None in (k, count["k"]) or k == count["k"]
    )


def _row(entry: CheckpointEntry, epsilon: float) -> ReproductionRow:
    published = tuple(asdict(count) | {"k": count.k or entry.k} for count in entry.published)
    return ReproductionRow(entry.id, entry.family, epsilon, published)


def _counts(audit: CollapseAudit) -> Measured:
    p = audit.prototypes
    return Measured(p.name, p.branch, p.k, audit.num_unique, audit.redundancy.components)


def _done(state: Path) -> Iterable[tuple[str, ReproductionRow]]:
    """The rows of an earlier run."""
    if not state.exists():
        return
    content = read_json(state)
    try:
        for row in (content or {})["rows"]:
            measured = tuple(Measured(**head) for head in row["measured"])
            fields = {**row, "measured": measured, "published": tuple(row["published"])}
            yield str(row["id"]), ReproductionRow(**fields)
    except (KeyError, TypeError):
        raise ReportError(
            f"{state}: is not a state file of `collapse-audit reproduce`.",
            hint="Name another file, `state=FILE`, or remove it.",
        ) from None
