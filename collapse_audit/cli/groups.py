"""`--groups FILE`: which prototypes are copies of which, one row for each prototype."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from collapse_audit.errors import ParameterError
from collapse_audit.files import write_atomically
from collapse_audit.report.csv_text import rows_to_csv

if TYPE_CHECKING:
    import numpy.typing as npt

    from collapse_audit.head_audit import CollapseAudit

#: Source, head and branch; group and leader of every prototype (k x 2, int64).
Grouping: TypeAlias = "tuple[tuple[str, str, str | None], npt.NDArray[np.int64]]"


def grouping_of(audit: CollapseAudit) -> Grouping:
    """What of an audit `--groups` writes."""
    name = (audit.source.spec, audit.prototypes.name, audit.prototypes.branch)
    return name, np.stack([audit.groups, audit.redundancy.leaders[audit.groups]], axis=1)


def check_suffix(file: Path) -> None:
    """Refuse a name that implies neither format, before the work."""
    if file.suffix.lower() not in (".csv", ".npy"):
        raise ParameterError(f"--groups: {file}: is neither .csv nor .npy.")


def write_groups(found: Sequence[Grouping], file: Path) -> None:
    """Write a table of all heads, or the array of the only one."""
    if file.suffix.lower() == ".csv":
        columns = ("source", "head", "branch", "prototype", "group", "leader")
        rows = [
            dict(zip(columns, (*name, index, *row), strict=True))
            for name, table in found
            for index, row in enumerate(table.tolist())
        ]
        write_atomically(file, rows_to_csv(rows).encode())
        return
    if len(found) > 1:
        raise ParameterError(
            f"--groups: {file}: an array holds one head, and there are {len(found)}.",
            hint="Choose one with --head, or name a .csv.",
        )
    stream = BytesIO()
    np.save(stream, found[0][1])
    write_atomically(file, stream.getvalue())
