"""Which head of a report belongs to which of another, and whether they can be compared."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final, Literal, TypeAlias, get_args

from collapse_audit.errors import ReportError
from collapse_audit.report.documents import HeadDocument, ReportDocument
from collapse_audit.words import did_you_mean

#: Differences that make two reports incomparable unless they are allowed by name.
Difference: TypeAlias = Literal[
    "schema", "metric", "epsilon", "radius", "rule", "k", "branch", "mlcd"
]
DIFFERENCES: Final[tuple[Difference, ...]] = get_args(Difference)

_MLCD_SETTINGS: Final = ("temperature", "centre", "branch", "prior", "assignment", "vmf")


def pair_heads(
    report: ReportDocument,
    baseline: ReportDocument,
    allow: Collection[Difference] = (),
    by_hand: Mapping[str, str] | None = None,
) -> tuple[tuple[HeadDocument, HeadDocument], ...]:
    """Match the heads of a report with those of another by name and branch, in their order."""
    # Where both hold a single head these are a pair whatever their names: a tensor is often stored
    # under another key by the next release. by_hand: names of heads that belong together, which
    # leaves the rest out; if it is empty, heads of other names are paired in their order.
    _refuse("schema", "the major schema version", _major(report), _major(baseline), allow)
    new, old = report["parameters"], baseline["parameters"]
    metrics = [document.get("metric", "cosine") for document in (new, old)]
    _refuse("metric", "the metric", metrics[0], metrics[1], allow)
    _refuse("epsilon", "epsilon", new.get("epsilon"), old.get("epsilon"), allow)
    _refuse("rule", "the counting rule", new.get("rule"), old.get("rule"), allow)
    if by_hand:
        pairs = [_named(report, baseline, *names) for names in by_hand.items()]
    else:
        pairs = _pairs(report["heads"], baseline["heads"], in_order=by_hand is not None)
    for head, other in pairs:
        _refuse("branch", f"the branch of {head['name']}", head["branch"], other["branch"], allow)
        radius = f"the radius of {head['name']}"
        _refuse("radius", radius, head.get("radius"), other.get("radius"), allow)
        _refuse("k", f"K of {head['name']}", head["k"], other["k"], allow)
    return tuple(pairs)


def refuse_other_mlcd(
    head: HeadDocument, baseline: HeadDocument, allow: Collection[Difference] = ()
) -> None:
    """Refuse to compare latent class distributions that were measured in different ways."""
    new: Mapping[str, object] = head.get("mlcd") or {}
    old: Mapping[str, object] = baseline.get("mlcd") or {}
    for key in _MLCD_SETTINGS:
        value, other = (mlcd.get(key) or None for mlcd in (new, old))  # reports of 0.1.0: no vmf
        _refuse("mlcd", f"mlcd.{key} of {head['name']}", value, other, allow)


def _named(
    report: ReportDocument, other: ReportDocument, name: str, partner: str
) -> tuple[HeadDocument, HeadDocument]:
    """The head of a name and its partner, or the head of the same name where there is none."""
    found = []
    for document, names in ((report, (name,)), (other, (partner, name))):
        held = {head["name"]: head for head in document["heads"]}
        chosen = [held[one] for one in names if one in held]
        if not chosen:
            raise no_head(names[0], document["source"]["spec"], held)
        found.append(chosen[0])
    return found[0], found[1]


def no_head(name: str, where: str, names: Collection[str]) -> ReportError:
    """The error for a name that is none of the names of heads there."""
    hint = did_you_mean(name, names) or f"It has: {', '.join(names)}."
    return ReportError(f"{where}: has no head {name!r}.", hint=hint)


def _pairs(
    heads: Sequence[HeadDocument], others: Sequence[HeadDocument], *, in_order: bool
) -> list[tuple[HeadDocument, HeadDocument]]:
    if len(heads) == len(others) == 1:
        return [(heads[0], others[0])]
    partner = {_key(other): other for other in others}
    if len(partner) < len(others):
        raise ReportError(
            "two heads have the same name and branch.",
            hint="Make a report of each with `head=NAME`.",
        )
    keys = {_key(head) for head in heads}
    left = [head for head in heads if _key(head) not in partner]
    right = [other for other in others if _key(other) not in keys]
    if (left or right) and not (in_order and len(left) == len(right)):
        names = ", ".join(
            sorted(
                f"{head['name']} ({head['branch']})" if head["branch"] else head["name"]
                for head in left + right
            )
        )
        raise ReportError(
            f"the two do not hold the same heads: {names}.",
            hint="Choose one with `head=NAME`"
            + (", or say `pair=NAME=NAME`." if in_order else "."),
        )
    partner |= {_key(head): other for head, other in zip(left, right, strict=True)}
    return [(head, partner[_key(head)]) for head in heads]


def _key(head: HeadDocument) -> tuple[str, str]:
    return str(head["name"]), str(head["branch"])


def _major(report: ReportDocument) -> str:
    return str(report["schema_version"]).split(".")[0]


def _refuse(
    difference: Difference, what: str, new: object, old: object, allow: Collection[Difference]
) -> None:
    if new != old and difference not in allow:
        raise ReportError(
            f"{what} is {new} here and {old} there, so the two cannot be compared.",
            hint=f"Make both in the same way, or say `allow={difference}`.",
        )
