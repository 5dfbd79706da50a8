"""The numbers of a report that a threshold can name, and which way each of them gets worse."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from collapse_audit.errors import ParameterError, ReportError
from collapse_audit.report import words
from collapse_audit.words import did_you_mean

#: ``"down"``: a smaller value is worse. ``None``: neither way is worse by itself.
Direction: TypeAlias = Literal["up", "down"] | None

_EXACT: Final = 0.0
# Functions of counts: float64 sums of at most K terms, so the last digits may differ.
_COUNTED: Final = 1e-9
# Measured on weights or samples, partly with float32 products.
_MEASURED: Final = 1e-6

# No metric comes near it; JSON can hold numbers that float64 cannot.
_LARGEST: Final = 1e100

_SWEEP: Final = re.compile(
    r"sweep\[(?P<epsilon>\d*\.?\d+)\]\.(?P<count>greedy|n_eff|components|isolated)"
)


@dataclass(frozen=True, slots=True)
class Metric:
    """One number of a head in a report."""

    path: str  # its keys, joined by points, such as ``redundancy_factors.max``
    worse: Direction  # which way it gets worse
    # two values this close count as equal, relative to the larger of 1 and the values; 0: integers
    tolerance: float = _EXACT
    low: int = 0  # no value is below it
    high: int = 10**300  # or above it

    @property
    def group(self) -> str:
        """First key of the path: the part of a report that the metric is in."""
        return re.split(r"[.\[]", self.path, maxsplit=1)[0]

    def read(self, head: Mapping[str, Any], where: str) -> int | float:
        """Look the number up, which is finite; ``where`` names the report in an error."""
        try:
            value = _look_up(head, self.path)
        except (KeyError, TypeError):
            value = None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ReportError(
                f"{where}: {self.path} was not measured.",
                hint=_HOW_TO_MEASURE.get(self.group, "Make the report again with this version."),
            )
        if not -_LARGEST < value < _LARGEST:
            raise ReportError(f"{where}: {self.path} is out of range, so the report is damaged.")
        return value


_HOW_TO_MEASURE: Final = {
    "nearest_cosine": "Make the report again with `nearest=True`. It is of the cosine metric.",
    "exact_duplicates": "Make the report again with `nearest=True`.",
    "sweep": "Make the report again with `sweep=True`; it holds the levels of its own sweep only.",
    "stored_usage": "It is in the files of codebooks that count it (`cluster_size`) only.",
    "mlcd": "It needs data: make the report with `collapse-audit mlcd`.",
}


def _mlcd_metrics() -> Iterator[Metric]:
    for name in ("mutual_information", "mutual_information_corrected"):
        yield Metric(f"mlcd.{name}", "down", _MEASURED)
    for name in ("mean_entropy", "kl_to_redundancy"):
        yield Metric(f"mlcd.{name}", None, _MEASURED)
    yield Metric("mlcd.mean_max_probability", None, _MEASURED, high=1)
    yield Metric("mlcd.hidden_divergence", "up", _MEASURED)
    for order in range(3):
        yield Metric(f"mlcd.diversity.order_{order}", "down", _MEASURED)
    for level in ("k", "m"):
        for name in ("entropy", "perplexity"):
            yield Metric(f"mlcd.{level}.{name}", "down", _MEASURED)
        for name in ("kl_to_prior", "kl_from_prior", "js"):
            yield Metric(f"mlcd.{level}.{name}", "up", _MEASURED)
        yield Metric(f"mlcd.{level}.tv", "up", _MEASURED, high=1)
        yield Metric(f"mlcd.usage.{level}.used", "down")
        yield Metric(f"mlcd.usage.{level}.dead", "up")
        yield Metric(f"mlcd.usage.{level}.head_mass", "up", _MEASURED, high=1)
        yield Metric(f"mlcd.usage.{level}.tail_mass", "down", _MEASURED, high=1)


_METRICS: Final = (
    Metric("k", None),
    Metric("d", None),
    Metric("unique.greedy", "down"),
    Metric("unique.n_eff", "down", _COUNTED),
    Metric("unique.components", "down"),
    Metric("unique.isolated", "down"),
    Metric("unique_fraction", "down", _COUNTED, high=1),
    Metric("redundancy_factors.max", "up"),
    Metric("redundancy_factors.mean", "up", _COUNTED),
    Metric("redundancy_factors.gini", "up", _COUNTED, high=1),
    Metric("redundancy_factors.effective_number", "down", _COUNTED),
    Metric("exact_duplicates", "up"),
    # the loneliest prototypes say nothing of the others: M may fall while they move away
    *(
        Metric(f"nearest_cosine.{name}", None, _MEASURED, low=-1, high=1)
        for name in ("min", "q01", "q05")
    ),
    *(
        Metric(f"nearest_cosine.{name}", "up", _MEASURED, low=-1, high=1)
        for name in ("median", "q95", "q99", "max")
    ),
    Metric("mean_direction_norm", "up", _MEASURED, high=1),
    *(Metric(f"norms.{name}", None, _MEASURED) for name in ("min", "median", "max")),
    Metric("norms.max_spread_in_group", None, _MEASURED),
    *(
        metric
        for level in ("k", "m")
        for metric in (
            Metric(f"stored_usage.{level}.perplexity", "down", _MEASURED),
            Metric(f"stored_usage.{level}.dead", "up"),
        )
    ),
    *_mlcd_metrics(),
)

#: Every metric by its path. ``sweep[E].greedy`` and its kin come on top, see :func:`find_metric`.
METRICS: Final[Mapping[str, Metric]] = {metric.path: metric for metric in _METRICS}

#: Short names, as papers write them.
ALIASES: Final[Mapping[str, str]] = {
    "M": "unique.greedy",
    "unique": "unique.greedy",
    "n_eff": "unique.n_eff",
    "components": "unique.components",
    "isolated": "unique.isolated",
    "fraction": "unique_fraction",
    "r_max": "redundancy_factors.max",
    "max_group": "redundancy_factors.max",
    "gini": "redundancy_factors.gini",
    "effective_number": "redundancy_factors.effective_number",
    "mutual_information": "mlcd.mutual_information",
    "perplexity": "mlcd.m.perplexity",
}


def find_metric(name: str) -> Metric:
    """A metric by its path or short name, or ``sweep[EPSILON].COUNT``; or a ParameterError."""
    # COUNT is ``greedy``, ``n_eff``, ``components`` or ``isolated``.
    path = ALIASES.get(name, name)
    if path in METRICS:
        return METRICS[path]
    if _SWEEP.fullmatch(path):
        return Metric(path, "down", _COUNTED if path.endswith(".n_eff") else _EXACT)
    known = [*METRICS, *ALIASES]
    ends = [path for path in known if path.split(".")[-1] == name.lower()]
    raise ParameterError(
        f"there is no metric {name!r}.",
        hint=did_you_mean(name, ends or known, cutoff=0 if ends else 0.5)
        or f"Common ones: {', '.join(list(METRICS)[2:9])}.",
    )


def _look_up(head: Mapping[str, Any], path: str) -> object:
    if at := _SWEEP.fullmatch(path):
        epsilon = float(at["epsilon"])
        return next(
            (row[at["count"]] for row in head["sweep"] if words.level(row) == epsilon), None
        )
    value: Any = head
    for key in path.split("."):
        value = value[key]
    return value
