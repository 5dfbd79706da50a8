"""Audit a head: prototypes in, unique prototypes, redundancy factors and a report out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypedDict

import numpy as np
import numpy.typing as npt

from collapse_audit.dead_rows import DeadRows, measure_dead_rows
from collapse_audit.errors import ParameterError
from collapse_audit.prototypes import Metric, Prototypes, as_prototypes
from collapse_audit.redundancy import (
    Diversity,
    Redundancy,
    measure_diversity,
    measure_redundancy,
)
from collapse_audit.report.documents import HeadDocument, ReportDocument, SourceDocument
from collapse_audit.report.html import to_html, to_html_fragment
from collapse_audit.report.json_text import to_json
from collapse_audit.report.markdown import to_markdown
from collapse_audit.report.table import to_table
from collapse_audit.report_builder import head_document, report_document
from collapse_audit.similarity import NEff, Progress, silent
from collapse_audit.stored_usage import StoredUsage, measure_stored_usage

if TYPE_CHECKING:
    import pandas as pd
    import torch
    from matplotlib.axes import Axes

    from collapse_audit.gallery import Gallery
    from collapse_audit.mlcd import MLCD


class Measuring(TypedDict, total=False):
    """How a head is measured, as :func:`audit_prototypes` documents it."""

    epsilon: float | None
    sweep: bool
    nearest: bool
    device: str
    metric: Metric
    radius: float | None
    progress: Progress


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

    def to_dict(self) -> SourceDocument:
        """The source in a report."""
        return {"spec": self.spec, "id": self.id, "family": self.family, "sha256": self.sha256}


@dataclass(frozen=True, slots=True, eq=False)
class CollapseAudit:
    """What an audit of one head found.

    Attributes:
        prototypes: The audited prototypes.
        redundancy: Groups, counts, the sweep over epsilon and the nearest prototypes.
        source: What was audited.
        mlcd: Class distribution over the prototypes, if it was measured; see :meth:`with_mlcd`.
        diversity: Effective number of its classes, where duplicates count as one.
        dead: Rows whose norms lie below a gap; ``None`` where there is none.
    """

    prototypes: Prototypes
    redundancy: Redundancy
    source: Source = field(default_factory=Source)
    mlcd: MLCD | None = None
    diversity: Diversity | None = None
    dead: DeadRows | None = None

    def with_mlcd(self, mlcd: MLCD) -> CollapseAudit:
        """The same audit with a class distribution over its prototypes, and its diversity."""
        found = measure_diversity(self.prototypes, self.redundancy, mlcd.probabilities)
        return replace(self, mlcd=mlcd, diversity=found)

    def gallery(self, images: Any = None, *, classes: int = 8, top: int = 12) -> Gallery:
        """The largest groups and the classes with most mass, with the images assigned to them.

        Args:
            images: What the MLCD was measured over: :func:`open_samples` of it, or PIL images or
                arrays (h x w or h x w x 3, uint8) by place. Without, samples are told by place.
            classes: Of each kind, 1 to 24.
            top: Samples of each class, those with the largest q_m(x), 1 to 24.

        Returns:
            The gallery: a notebook shows it, ``to_html`` writes it.

        Raises:
            ParameterError: If no MLCD with groups was measured, a number is out of its range, or
                there are fewer images than samples.
        """
        from collapse_audit.gallery import make_gallery
        from collapse_audit.thumbnails import thumbnails

        if self.mlcd is None:
            raise ParameterError(
                "a gallery shows the classes of samples, and none were measured.",
                hint="Use audit.with_mlcd(measure_mlcd(..., groups=audit.groups)).",
            )
        found = make_gallery(
            self.mlcd,
            source=self.source.to_dict(),
            name=self.prototypes.name,
            branch=self.prototypes.branch,
            parameters=self.to_dict()["parameters"],
            classes=classes,
            top=top,
        )
        images = getattr(images, "images", images)
        if images is None:
            return found
        places = (int(i) for each in found.classes.values() for i in each.samples)
        return replace(found, thumbnails=thumbnails(images, places))

    @property
    def num_unique(self) -> int:
        """Unique prototypes M, by the greedy leader cover in index order."""
        return self.redundancy.num_unique

    @property
    def n_eff(self) -> NEff:
        """Effective number of prototypes, which depends on no scan order."""
        return self.redundancy.n_eff

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

    @property
    def unique_prototypes(self) -> Prototypes:
        """The prototype that stands for each group (m x d), numbered as the groups are."""
        p, leaders = self.prototypes, self.redundancy.leaders
        bias = None if p.bias is None else p.bias[leaders]
        usage = None if p.usage is None else np.bincount(self.groups, p.usage).astype(np.float64)
        rows, lengths, norms = p.rows[leaders], p.lengths[leaders], p.norms[leaders]
        return replace(p, rows=rows, lengths=lengths, norms=norms, bias=bias, usage=usage)

    def stored_usage(self, level: Literal["k", "m"] = "k") -> StoredUsage | None:
        """How often training took each prototype (or unique one, ``"m"``), if the file tells."""
        usage = self.prototypes.usage
        groups = None if level == "k" else self.groups
        return None if usage is None else measure_stored_usage(usage, groups)

    def members(self, group: int) -> npt.NDArray[np.int64]:
        """Rising indices of the prototypes of a group, 0 to M - 1; another is a ParameterError."""
        if not 0 <= group < self.num_unique:
            raise ParameterError(f"group must be from 0 to {self.num_unique - 1}, got {group}.")
        return np.flatnonzero(self.groups == group).astype(np.int64)

    def plot(self, *, ax: Axes | None = None) -> Axes:
        """Draw how often each unique prototype is repeated; gives the Axes, by default new ones."""
        from collapse_audit.plots.redundancy import plot_redundancy_factors

        return plot_redundancy_factors(self, ax=ax)

    def head_report(self) -> HeadDocument:
        """The entry of this head in a report."""
        published = [(count.unique, count.source) for count in self.source.published]
        return head_document(
            self.prototypes, self.redundancy, published, self.mlcd, self.diversity, dead=self.dead
        )

    def to_dict(self) -> ReportDocument:
        """The report of this head alone, as ``--format json`` prints it."""
        return build_report([self])

    def to_json(self) -> str:
        """The report as JSON."""
        return to_json(self.to_dict())

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
        return to_markdown(self.to_dict())

    def to_html(self) -> str:
        """The report as one self-contained HTML page."""
        return to_html(self.to_dict(), groups=[[self.groups]])

    def _repr_html_(self) -> str:
        return to_html_fragment(self.to_dict())

    def __repr__(self) -> str:
        found = self.redundancy
        at = f"{'epsilon' if found.radius is None else 'radius'}={found.threshold:g}"
        counts = f"num_unique={self.num_unique}, {at}"
        return f"CollapseAudit({self.prototypes!r}, {counts}, source={self.source.spec!r:.60})"

    def __str__(self) -> str:
        return to_table(self.to_dict())


def audit_prototypes(
    prototypes: Prototypes | npt.ArrayLike | torch.Tensor,
    *,
    epsilon: float | None = None,
    sweep: bool = True,
    nearest: bool = True,
    device: str = "auto",
    metric: Metric = "cosine",
    radius: float | None = None,
    source: Source | None = None,
    progress: Progress = silent,
) -> CollapseAudit:
    """Count the unique prototypes of a head and describe how the rest repeat them.

    Args:
        prototypes: The prototypes of one head, or their matrix (k x d, numpy or torch).
        epsilon: Cosine distance below which two are duplicates, between 0 and 1; by default 0.025,
            the headline value of Arteaga et al. 2026.
        sweep: Whether to count at the other thresholds of the papers too.
        nearest: Whether to find the nearest other prototype of each one.
        device: ``"auto"``, ``"cpu"``, ``"cuda"`` or ``"cuda:N"``. The result is the same on each.
        metric: ``"cosine"``, or ``"euclidean"`` for codebooks, whose codes are points.
        radius: Euclidean distance below which two are duplicates, in that metric; the default is
            that of :func:`measure_redundancy`.
        source: What is audited, for the report.
        progress: Called with (stage, done, total) while it runs.

    Returns:
        The audit; equal on every device and thread count for the same stored weights.

    Raises:
        ParameterError: If a threshold is out of its range or not of the metric, or there is no such
            metric or device.
        PrototypeError: If rows are so long that float64 does not hold their distances.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> unique = rng.standard_normal((5, 64))
        >>> audit = audit_prototypes(unique[[0, 1, 2, 3, 4, 0, 0, 1]])
        >>> audit.num_unique, audit.redundancy_factors.tolist(), audit.members(0).tolist()
        (5, [3, 2, 1, 1, 1], [0, 5, 6])
    """
    prototypes = as_prototypes(prototypes, zero_rows=metric == "euclidean")
    measured = measure_redundancy(
        prototypes,
        epsilon=epsilon,
        sweep=None if sweep else (),
        nearest=nearest,
        device=device,
        metric=metric,
        radius=radius,
        progress=progress,
    )
    dead = measure_dead_rows(prototypes, measured, device=device, progress=progress)
    source = source or Source(spec=prototypes.source, family=prototypes.family)
    return CollapseAudit(prototypes, measured, source, dead=dead)


def build_report(audits: Sequence[CollapseAudit]) -> ReportDocument:
    """The report of all audited heads (at least one) of one source, all in the same metric."""
    first = audits[0]
    heads = [audit.head_report() for audit in audits]
    metric, epsilon = first.redundancy.metric, first.redundancy.epsilon
    return report_document(first.source.to_dict(), metric, epsilon, heads)
