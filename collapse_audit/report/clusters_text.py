"""An estimate of the number of clusters as a text table."""

from __future__ import annotations

import math
import textwrap
from typing import Final

from collapse_audit.report import words
from collapse_audit.report.clusters_document import ClustersDocument
from collapse_audit.report.columns import text_columns
from collapse_audit.report.table import WIDEST

_PLATEAUS: Final = ("clusters", "from epsilon", "to", "factor", "bootstraps")
_PARTS: Final = ("part", "samples", "long / wide", "p (round)", "p (normal)")
_CURVE: Final = ("epsilon", "M", "5 to 95 % of bootstraps")
_SHOWN: Final = 5  # plateaus; and every so many thresholds of the curve
_PARTS_SHOWN: Final = 12


def clusters_to_table(found: ClustersDocument, *, width: int = WIDEST) -> str:
    """Write an estimate for a terminal: the verdict, then what it was decided by."""
    best = found["plateaus"][:_SHOWN]
    plateaus = (
        (
            words.count(plateau["clusters"]),
            words.number(plateau["start"]),
            words.number(plateau["stop"]),
            f"{math.exp(plateau['width']):.2f}",
            f"{plateau['votes']} of {found['bootstraps']}",
        )
        for plateau in best
    )
    parts = (
        (
            str(number),
            words.count(part["samples"]),
            words.number(part["elongation"]),
            words.number(part["p_round"]),
            words.number(part["p_normal"]),
        )
        for number, part in enumerate(found["parts"], start=1)
    )
    curve = [
        (words.number(epsilon), words.count(m), f"{words.count(low)} to {words.count(high)}")
        for epsilon, m, low, high in zip(*found["curve"].values(), strict=True)
    ]
    size = (
        f"{words.plural(found['n'], 'sample')} of dimension {words.count(found['d'])}; "
        f"{words.count(found['centres'])} centres of k-means, "
        f"{words.count(found['centres'] - found['kept'])} of them outliers."
    )
    lines = [*textwrap.wrap(verdict(found), width), *textwrap.wrap(size, width), ""]
    if best:
        lines += text_columns(_PLATEAUS, plateaus, "> > > > >")
        lines += ["", *text_columns(_PARTS, parts, "> > > > >", most=_PARTS_SHOWN), ""]
    lines += text_columns(_CURVE, curve[::_SHOWN], "> > >")
    return "\n".join(lines) + "\n"


def verdict(found: ClustersDocument) -> str:
    """The one sentence to remember."""
    if found["clusters"] is None:
        return f"No estimate: {found['reason']}."
    best = found["plateaus"][0]
    return (
        f"{words.plural(found['clusters'], 'cluster')}: the count holds while epsilon grows by a "
        f"factor of {math.exp(best['width']):.2f}, and in {best['votes']} of "
        f"{found['bootstraps']} bootstraps."
    )
