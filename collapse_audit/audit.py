"""Audit a head: prototypes in, unique prototypes, redundancy factors and a report out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from collapse_audit import report
from collapse_audit.prototypes import Prototypes
from collapse_audit.redundancy import (
    DEFAULT_EPSILON,
    SWEEP_EPSILONS,
    Redundancy,
    measure_redundancy,
)
from collapse_audit.similarity import (
    Nearest,
    Progress,
    duplicate_probability,
    nearest_cosine_quantiles,
    silent,
)
from collapse_audit.version import __version__

if TYPE_CHECKING:
    import pandas as pd

SCHEMA = "collapse-audit/report"
SCHEMA_VERSION = "1.0"
TOP_FACTORS = 20
_QUANTILES = {"q01": 0.01, "q05": 0.05, "median": 0.5, "q95": 0.95, "q99": 0.99}


@dataclass(frozen=True, slots=True)
class Published:
    """A count of unique prototypes that a paper reports for the same head.

    Attributes:
        unique: M as published.
        source: Where, in words a reader can look up.
    """

    unique: int
    source: str


@dataclass(frozen=True, slots=True)
class Source:
    """What was audited, for the report.

    Attributes:
        spec: The source as the user typed it; no absolute path.
        id: Manifest id, if it has one.
        family: Family of methods, if known.
        sha256: Of the file, if there was one and it was read whole.
        published: Published counts, the one to compare with first.
    """

    spec: str = "memory"
    id: str | None = None
    family: str | None = None
    sha256: str | None = None
    published: tuple[Published, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class CollapseAudit:
    """What an audit of one head found.

    Attributes:
        prototypes: The audited prototypes.
        redundancy: Groups, counts, the sweep over epsilon and the nearest prototypes.
        source: What was audited.
    """

    prototypes: Prototypes
    redundancy: Redundancy
    source: Source = field(default_factory=Source)

    @property
    def num_unique(self) -> int:
        """Unique prototypes M, by the greedy leader cover in index order."""
        return self.redundancy.num_unique

    @property
    def unique_fraction(self) -> float:
        """M / K, above 0 and at most 1."""
        return self.redundancy.unique_fraction

    @property
    def redundancy_factors(self) -> npt.NDArray[np.int64]:
        """Copies of each unique prototype, r_m (m, falling); they sum to K."""
        return self.redundancy.redundancy_factors

    @property
    def groups(self) -> npt.NDArray[np.int64]:
        """Group of each prototype (k), numbered by falling size."""
        return self.redundancy.groups

    def head_report(self) -> dict[str, Any]:
        """The entry of this head in a report."""
        p, r = self.prototypes, self.redundancy
        return {
            "name": p.name,
            "branch": p.branch,
            "tensor_keys": list(p.tensor_keys),
            "k": p.k,
            "d": p.d,
            "dtype": p.dtype,
            "unique": {
                "greedy": r.num_unique,
                "components": r.components,
                "isolated": r.isolated,
                "bracket": [r.bracket.low, r.bracket.high],
                "order_range": r.bracket.order_range and list(r.bracket.order_range),
                "definition_independent": r.bracket.definition_independent,
            },
            "unique_fraction": r.unique_fraction,
            "redundancy_factors": {
                "max": int(r.redundancy_factors[0]),
                "mean": r.mean_redundancy,
                "gini": r.gini,
                "effective_number": r.effective_number,
                "top": [int(factor) for factor in r.redundancy_factors[:TOP_FACTORS]],
                "histogram": [list(bar) for bar in r.histogram],
            },
            "sweep": [
                {
                    "epsilon": level.epsilon,
                    "greedy": level.greedy,
                    "components": level.components,
                    "isolated": level.isolated,
                }
                for level in r.sweep
            ],
            "nearest_cosine": None if r.nearest is None else _quantiles(r.nearest),
            "norms": _norms(p, r),
            "exact_duplicates": None if r.nearest is None else r.nearest.copies,
            "mean_direction_norm": _mean_direction_norm(p),
            "null": _null(p, r.epsilon),
            "published": _published(self.source.published),
            "mlcd": None,
        }

    def to_dict(self) -> dict[str, Any]:
        """The report of this head alone, as ``--format json`` prints it."""
        return build_report([self])

    def to_json(self) -> str:
        """The report as JSON."""
        return report.to_json(self.to_dict())

    def to_frame(self) -> pd.DataFrame:
        """One row per unique prototype: leader, redundancy factor, whether it is a clique."""
        import pandas as pd

        return pd.DataFrame(
            {
                "leader": self.redundancy.leaders,
                "redundancy_factor": self.redundancy_factors,
                "clique": self.redundancy.cliques,
            }
        ).rename_axis("unique_prototype")

    def to_markdown(self) -> str:
        """The report as Markdown."""
        return report.to_markdown(self.to_dict())

    def to_html(self) -> str:
        """The report as one self-contained HTML page."""
        return report.to_html(self.to_dict())

    def _repr_html_(self) -> str:
        return report.to_html_fragment(self.to_dict())

    def __str__(self) -> str:
        return report.to_table(self.to_dict())


def audit_prototypes(
    prototypes: Prototypes,
    *,
    epsilon: float = DEFAULT_EPSILON,
    sweep: bool = True,
    nearest: bool = True,
    device: str = "auto",
    source: Source | None = None,
    progress: Progress = silent,
) -> CollapseAudit:
    """Count the unique prototypes of a head and describe how the rest repeat them.

    Args:
        prototypes: The prototypes of one head.
        epsilon: Cosine distance below which two are duplicates, between 0 and 1; 0.025 is the
            headline value of Arteaga et al. 2026.
        sweep: Whether to count at the other thresholds of the papers too.
        nearest: Whether to find the nearest other prototype of each one.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``. The result is the same on each.
        source: What is audited, for the report.
        progress: Called with (stage, done, total) while it runs.

    Returns:
        The audit; equal on every device and thread count for the same stored weights.

    Raises:
        ParameterError: If epsilon is not between 0 and 1, or there is no such device.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> unique = rng.standard_normal((5, 64))
        >>> audit = audit_prototypes(Prototypes.from_weight(unique[[0, 1, 2, 3, 4, 0, 0, 1]]))
        >>> audit.num_unique, audit.redundancy_factors.tolist()
        (5, [3, 2, 1, 1, 1])
    """
    measured = measure_redundancy(
        prototypes,
        epsilon=epsilon,
        sweep=SWEEP_EPSILONS if sweep else (),
        nearest=nearest,
        device=device,
        progress=progress,
    )
    return CollapseAudit(
        prototypes=prototypes,
        redundancy=measured,
        source=source or Source(spec=prototypes.source, family=prototypes.family),
    )


def build_report(audits: Sequence[CollapseAudit]) -> dict[str, Any]:
    """The report of all audited heads of one source.

    Args:
        audits: At least one, all of the same source and epsilon.

    Returns:
        A dictionary of plain values, as the shipped JSON Schema describes.
    """
    source = audits[0].source
    return {
        "schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "tool": {"name": "collapse-audit", "version": __version__},
        "source": {
            "spec": source.spec,
            "id": source.id,
            "family": source.family,
            "sha256": source.sha256,
        },
        "parameters": {
            "epsilon": audits[0].redundancy.epsilon,
            "rule": "greedy",
            "certified": True,
        },
        "heads": [audit.head_report() for audit in audits],
    }


def _quantiles(nearest: Nearest) -> dict[str, float]:
    cosine = nearest.cosine
    inner = np.quantile(cosine, list(_QUANTILES.values()))
    return {
        "min": float(cosine.min()),
        **dict(zip(_QUANTILES, (float(q) for q in inner), strict=True)),
        "max": float(cosine.max()),
    }


def _null(prototypes: Prototypes, epsilon: float) -> dict[str, Any]:
    """The same measurements for as many random directions."""
    k, d = prototypes.k, prototypes.d
    probability = duplicate_probability(epsilon, d)
    inner = nearest_cosine_quantiles(list(_QUANTILES.values()), k, d)
    return {
        "probability": probability,
        "expected_pairs": probability * k * (k - 1) / 2,
        "nearest_cosine": dict(zip(_QUANTILES, (float(q) for q in inner), strict=True)),
    }


def _norms(prototypes: Prototypes, redundancy: Redundancy) -> dict[str, float]:
    norms, m = prototypes.norms, redundancy.num_unique
    largest, smallest = np.zeros(m), np.full(m, np.inf)
    np.maximum.at(largest, redundancy.groups, norms)
    np.minimum.at(smallest, redundancy.groups, norms)
    return {
        "min": float(norms.min()),
        "median": float(np.median(norms)),
        "max": float(norms.max()),
        "max_spread_in_group": float((largest / smallest).max()),
    }


def _mean_direction_norm(prototypes: Prototypes) -> float:
    total = np.zeros(prototypes.d)
    for start in range(0, prototypes.k, 8192):
        total += prototypes.unit_rows(slice(start, start + 8192)).sum(axis=0)
    return float(np.linalg.norm(total / prototypes.k))


def _published(counts: Sequence[Published]) -> dict[str, Any] | None:
    if not counts:
        return None
    first, *others = ({"unique": count.unique, "source": count.source} for count in counts)
    return {**first, "others": others}
