"""What to do next, given what was found in a head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from collapse_audit.report.documents import HeadDocument
from collapse_audit.report.words import count, plural

#: Width of the bracket, as a share of M, from which on M is not quoted alone; a choice of ours.
_WIDE: Final = 0.05


def next_steps(head: HeadDocument) -> Iterator[str]:
    """Sentences, the most important first."""
    k, unique = head["k"], head["unique"]
    m = unique["greedy"]
    if m == k:
        yield "There is nothing to mend: no two prototypes are duplicates at this threshold."
    else:
        yield (
            f"Read entropy, perplexity and usage over the {plural(m, 'unique prototype')}: over "
            f"all {count(k)} they look more even than they are."
        )
        if head["mlcd"] is None:
            yield (
                "To see what the copies do to the predictions, run: "
                "collapse-audit mlcd SOURCE --data IMAGES"
            )
        if head.get("stored_usage") is None and "radius" not in head:
            yield (
                "In the next training, spread the prototypes with the KoLeo-proto loss (weight "
                "0.1), or choose a smaller K."
            )
    low, high = unique.get("bracket") or (unique["components"], m)
    if high - low > _WIDE * m:
        yield (
            f"Do not quote M alone: {count(low)} to {count(high)} are possible by the rule and the "
            "scan order. Quote the bracket, or N_eff, with it."
        )
    if not head["sweep"]:
        yield "To see how M depends on the threshold, audit the source again without --no-sweep."
    yield (
        "To keep later checkpoints from getting worse, save this audit as JSON and run: "
        "collapse-audit check SOURCE --baseline report.json"
    )
