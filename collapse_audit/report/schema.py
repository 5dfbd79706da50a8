"""The JSON Schema of reports and of error documents."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from collapse_audit.report.documents import ERROR_SCHEMA, ErrorDocument


def report_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) of reports and of error documents, or lists of them."""
    # Unknown keys are allowed everywhere: a later minor version may add some, and readers must
    # ignore them.
    text = files("collapse_audit.report").joinpath("report_schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def error_document(kind: str, message: str, hint: str) -> ErrorDocument:
    """What ``--format json`` prints when there is no report: class and text of an error."""
    return {"schema": ERROR_SCHEMA, "error": {"type": kind, "message": message, "hint": hint}}
