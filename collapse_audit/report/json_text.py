"""A report as JSON: what baselines hold and what other programs read."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

_NUMBER = r"-?\d[\d.eE+-]*"
# A raw line break never occurs inside a JSON string, so this can only match a real array.
_NUMBERS = re.compile(rf"\[\n\s+({_NUMBER}(?:,\n\s+{_NUMBER})*)\n\s+\]")


def to_json(document: Mapping[str, object] | Sequence[Mapping[str, object]]) -> str:
    """A report, a schema or an error document, or a list of them, as JSON; NaN is refused."""
    # ASCII only, so that no terminal or pipe encoding can damage it, and with arrays of numbers on
    # one line each, so that the diff of two baselines stays readable.
    text = json.dumps(document, indent=2, allow_nan=False)
    text = text.replace("##[", "#\\u0023[")  # an order to a runner of GitHub, anywhere in a line
    return _NUMBERS.sub(_on_one_line, text) + "\n"


def _on_one_line(array: re.Match[str]) -> str:
    return f"[{', '.join(array[1].replace(',', ' ').split())}]"
