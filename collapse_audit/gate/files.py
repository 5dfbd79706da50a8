"""Read reports from files, and replace a baseline as a whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any, Final, NoReturn, cast

from collapse_audit.errors import ReportError
from collapse_audit.files import read_bounded, write_atomically
from collapse_audit.gate.pairing import Difference
from collapse_audit.report.documents import ERROR_SCHEMA, REPORT_SCHEMA, ReportDocument
from collapse_audit.report.json_text import to_json

_MAJOR: Final = 1

# What every report and every head has, and its type; the rest is checked where it is used.
_KEYS: Final = {"heads": list, "parameters": dict, "source": dict}
_HEAD_KEYS: Final = {"name": str, "k": int, "unique": dict, "redundancy_factors": dict}


def read_report(path: Path, *, allow: Collection[Difference] = ()) -> ReportDocument:
    """Read a saved report; with ``"schema"`` allowed, also one of a newer major version."""
    try:
        text = read_bounded(path).decode()
    except OSError as error:
        raise ReportError(f"{path}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise ReportError(f"{path}: not a report, not even text.") from error
    return parse_report(text, str(path), allow=allow)


def parse_report(text: str, name: str, *, allow: Collection[Difference] = ()) -> ReportDocument:
    """Read a report from JSON text; ``name`` is what an error calls it."""
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ReportError(
            f"{name}: not valid JSON ({error}).", hint="Was it cut off? Make the report again."
        ) from error
    return check_report(document, name, allow=allow)


def check_report(
    document: object, name: str = "report", *, allow: Collection[Difference] = ()
) -> ReportDocument:
    """Make sure that plain values are a report of a known version, and not damaged."""
    if isinstance(document, list):
        raise ReportError(
            f"{name}: holds the reports of several sources.", hint="Save one report in each file."
        )
    schema = document.get("schema") if isinstance(document, dict) else None
    if schema == ERROR_SCHEMA:
        raise ReportError(f"{name}: records an error, not a report.")
    if schema != REPORT_SCHEMA or not isinstance(document, dict):
        raise ReportError(
            f"{name}: not a report of collapse-audit.",
            hint="Make one with: collapse-audit SOURCE --format json",
        )
    _check_version(document, name, allow)
    _check_shape(document, name)
    return cast("ReportDocument", document)


def write_report(report: ReportDocument, path: Path) -> None:
    """Write a report so that a reader, or a crash, finds the old file or the new one whole."""
    write_atomically(path, to_json(report).encode())


def _check_version(document: dict[str, Any], name: str, allow: Collection[Difference]) -> None:
    version = document.get("schema_version")
    major, _, minor = str(version)[:99].partition(".")
    if not (isinstance(version, str) and major.isdecimal() and minor.isdecimal()):
        raise ReportError(f"{name}: its schema version is {version!r}, which is none.")
    if int(major) != _MAJOR and "schema" not in allow:
        raise ReportError(
            f"{name}: has schema version {version}, and this version knows {_MAJOR}.x only.",
            hint="Update collapse-audit, or make the report again.",
        )


def _check_shape(document: dict[str, Any], name: str) -> None:
    for key, sort in _KEYS.items():
        if not isinstance(document.get(key), sort) or not document[key]:
            raise ReportError(f"{name}: is damaged: it has no {key}.")
    document["source"].setdefault("spec", "?")
    for number, head in enumerate(document["heads"]):
        for key, kind in _HEAD_KEYS.items():
            if not isinstance(head, dict) or not isinstance(head.get(key), kind):
                raise ReportError(f"{name}: is damaged: heads[{number}] has no {key}.")
        if not isinstance(head.setdefault("branch", None), str | None):
            raise ReportError(f"{name}: is damaged: the branch of heads[{number}] is no text.")


def _refuse_constant(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is not a JSON number")
