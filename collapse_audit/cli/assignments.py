"""`--assignments FILE`: which prototype and which unique class each sample belongs to."""

from __future__ import annotations

from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from collapse_audit.errors import ParameterError
from collapse_audit.files import write_atomically
from collapse_audit.report.csv_text import csv_cell

if TYPE_CHECKING:
    from collapse_audit.mlcd import MLCD


def check_suffix(file: Path) -> None:
    """Refuse a name that implies neither format, or one that cannot be written, before the work."""
    suffix = file.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise ParameterError(f"--assignments: {file}: is neither .csv nor .parquet.")
    if suffix == ".parquet" and find_spec("pyarrow") is None:
        raise ParameterError(
            f"--assignments: {file}: parquet needs pyarrow, which is not installed.",
            hint="Try: pip install pyarrow, or name a .csv.",
        )


def write_assignments(mlcd: MLCD, names: tuple[str, ...] | None, file: Path) -> None:
    """Write a row for every sample, with its name below the folder of the data if it has one."""
    table = mlcd.assignments()
    as_csv = file.suffix.lower() == ".csv"
    if names is not None:
        called = [names[place] for place in table["sample"]]
        table["file"] = [csv_cell(name) for name in called] if as_csv else called
    stream = BytesIO()
    if as_csv:
        table.to_csv(stream, index=False, lineterminator="\n")
    else:
        table.to_parquet(stream, engine="pyarrow", index=False)
    write_atomically(file, stream.getvalue())
