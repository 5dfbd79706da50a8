"""Read reports from files, and replace a baseline as a whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from collapse_audit.errors import ReportError
from collapse_audit.gate.pairing import Difference
from collapse_audit.report import to_json

SCHEMA: Final = "collapse-audit/report"
MAJOR: Final = 1

# What every head has, and its type; the rest is checked where it is used.
_HEAD_KEYS: Final = {"name": str, "k": int, "unique": dict, "redundancy_factors": dict}


def read_report(path: Path, *, allow: Collection[Difference] = ()) -> dict[str, Any]:
    """Read a saved report.

    Args:
        path: A file that ``--format json`` wrote.
        allow: With ``"schema"``, a newer major version of the schema is read as if it were known.

    Returns:
        The report.

    Raises:
        ReportError: If the file cannot be read, is damaged, or is no report of a known version.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ReportError(f"{path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ReportError(f"{path}: not a report, not even text.") from error
    return parse_report(text, str(path), allow=allow)


def parse_report(text: str, name: str, *, allow: Collection[Difference] = ()) -> dict[str, Any]:
    """Read a report from JSON text.

    Args:
        text: What ``--format json`` printed.
        name: What to call it in an error.
        allow: As for :func:`read_report`.

    Returns:
        The report.

    Raises:
        ReportError: If it is damaged, or no report of a known version.
    """
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ReportError(
            f"{name}: not valid JSON ({error}).", hint="Was it cut off? Make the report again."
        ) from error
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema == "collapse-audit/error":
        raise ReportError(f"{name}: records an error, not a report.")
    if schema != SCHEMA:
        raise ReportError(
            f"{name}: not a report of collapse-audit.",
            hint="Make one with: collapse-audit SOURCE --format json",
        )
    _check_version(document, name, allow)
    _check_shape(document, name)
    return document  # type: ignore[no-any-return]


def write_report(report: Mapping[str, Any], path: Path) -> None:
    """Write a report so that a reader, or a crash, finds the old file or the new one whole.

    Args:
        report: The report.
        path: Where; a symbolic link stays one.

    Raises:
        ReportError: If the file cannot be written; then the old one is as it was.
    """
    target = path.resolve()
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as stream:
            stream.write(to_json(dict(report)))
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(target)
        _sync_folder(target.parent)
    except OSError as error:
        raise ReportError(f"{path}: cannot be written: {error.strerror}.") from error
    finally:
        partial.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself durable, where the file system can."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _check_version(document: dict[str, Any], name: str, allow: Collection[Difference]) -> None:
    version = document.get("schema_version")
    major, _, minor = str(version).partition(".")
    if not (isinstance(version, str) and major.isdecimal() and minor.isdecimal()):
        raise ReportError(f"{name}: its schema version is {version!r}, which is none.")
    if int(major) != MAJOR and "schema" not in allow:
        raise ReportError(
            f"{name}: has schema version {version}, and this version knows {MAJOR}.x only.",
            hint="Update collapse-audit, or make the report again.",
        )


def _check_shape(document: dict[str, Any], name: str) -> None:
    heads = document.get("heads")
    if not isinstance(heads, list) or not heads or not isinstance(document.get("parameters"), dict):
        raise ReportError(f"{name}: is damaged: it has no heads or no parameters.")
    for number, head in enumerate(heads):
        for key, kind in _HEAD_KEYS.items():
            if not isinstance(head, dict) or not isinstance(head.get(key), kind):
                raise ReportError(f"{name}: is damaged: heads[{number}] has no {key}.")
        head.setdefault("branch", None)


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")
