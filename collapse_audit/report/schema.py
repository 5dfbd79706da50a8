"""The JSON Schema of reports and of error documents."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

from collapse_audit.report.documents import ERROR_SCHEMA, ErrorDocument


def report_schema() -> dict[str, Any]:
    """Read the schema (draft 2020-12) of reports and of error documents.

    Returns:
        A schema that accepts a report, an error document or a list of them. Unknown keys are
        allowed everywhere: a later minor version may add some, and readers must ignore them.
    """
    text = files("collapse_audit.report").joinpath("report_schema.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


def error_document(kind: str, message: str, hint: str) -> ErrorDocument:
    """Build what ``--format json`` prints when there is no result.

    Args:
        kind: Name of the error class, such as ``CheckpointError``.
        message: What is wrong, with the value.
        hint: What to do next; may be empty.

    Returns:
        A document of the schema ``collapse-audit/error``.
    """
    return {"schema": ERROR_SCHEMA, "error": {"type": kind, "message": message, "hint": hint}}
