"""JSON out of files that may mean harm."""

from __future__ import annotations

import json
from typing import Any

from collapse_audit.containers.limits import JSON_PARTS


def parse_json(text: bytes) -> Any:
    """Parse a header or index; a ``ValueError`` also if it is too large, or a key is double."""
    if text.count(b"[") + text.count(b"{") > JSON_PARTS:
        raise ValueError(f"more than {JSON_PARTS:,} lists and objects")
    try:
        return json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("lists and objects inside one another without end") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found
