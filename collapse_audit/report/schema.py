"""The JSON Schemas of what ``--format json`` prints."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any, Final

from collapse_audit.report.documents import ERROR_SCHEMA, ErrorDocument

#: Documents that have a schema, a file each.
KINDS: Final = ("report", "verdict", "comparison", "history", "info", "gallery", "clusters")


def report_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) of reports and of error documents, or lists of them."""
    return document_schema("report")


def document_schema(kind: str) -> dict[str, Any]:
    """The schema (draft 2020-12) of a document, one of :data:`KINDS`."""
    # Unknown keys are allowed everywhere: a later minor version may add some, and readers must
    # ignore them.
    text = files("collapse_audit.report").joinpath(f"{kind}_schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    if kind in ("history", "gallery"):  # they hold parts of reports
        schema["$defs"] = report_schema()["$defs"]
    return schema


def error_document(kind: str, message: str, hint: str) -> ErrorDocument:
    """What ``--format json`` prints when there is no report: class and text of an error."""
    return {"schema": ERROR_SCHEMA, "error": {"type": kind, "message": message, "hint": hint}}
