"""MLCD: the marginal latent class distribution over K prototypes and over the M unique ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt

from collapse_audit.errors import ParameterError
from collapse_audit.mlcd.statistics import (
    Counts,
    Divergences,
    LabelAgreement,
    Prior,
    Usage,
    Vector,
    agree_with_labels,
    compare_with_prior,
    entropy,
    kl_divergence,
    measure_usage,
    rarefaction,
    split_mass,
)

if TYPE_CHECKING:
    import pandas as pd

    from collapse_audit.mlcd.features import FeatureSpread
    from collapse_audit.prototypes import Branch
    from collapse_audit.report.documents import LabelsDocument, MLCDDocument

CentreSource: TypeAlias = Literal["file", "estimated", "none"]
Level: TypeAlias = Literal["k", "m"]
Shares: TypeAlias = "npt.NDArray[np.float32]"


# no slots: the divergences below are computed once and kept
@dataclass(frozen=True, eq=False)
class MLCD:
    """Marginal latent class distribution of a head, and what it hides.

    With p(k|x) the class probabilities of sample x: ``probabilities`` is their mean over the
    samples, ``unique_probabilities`` its sum over each group of duplicate prototypes. Exact
    duplicates inflate the entropy and perplexity of the first; they cannot change
    ``mutual_information`` or anything measured on the second.

    Methods with a ``level`` look at the K prototypes (``"k"``, the default) or at the M unique ones
    (``"m"``), where the class of a sample is the group with the largest sum of p(k|x). Without
    groups that, and :meth:`top_classes`, is a ParameterError.

    Attributes:
        n: Number of samples.
        probabilities: Mean probability of every prototype (k, float64).
        winners: Most likely prototype of every sample (n).
        winner_probabilities: Its p(k|x) (n, float32).
        groups: Group number of every prototype (k, int64), 0 to m - 1; ``None`` if unknown.
        unique_winners: Most likely group of every sample (n): that of the largest q_m(x), the sum
            of p(k|x) over the group, which need not hold the most likely prototype.
        unique_winner_probabilities: That q_m(x) (n, float32).
        copy_winners: Most likely prototype of that group (n), for every sample.
        mean_entropy: Mean over samples of the entropy of p(k|x), in nats.
        mean_entropy_error: Standard error of that mean; NaN for one sample.
        mean_max_probability: Mean over samples of max p(k|x).
        probability_variances: Variance of p(k|x) over the samples (k, float64).
        temperature: Softmax temperature.
        temperature_source: What told it: ``"option"``, training options in a file, or a line of
            the official code; ``None`` where nobody says.
        centre: Where the subtracted centre came from.
        centre_source: What told to do so, as for the temperature; ``None`` if it was just there.
        vmf: Whether the von Mises-Fisher normaliser was added.
        branch: Which network's prototypes these are.
        prior: Prior that the divergences compare with.
        assignment: ``"softmax"`` or ``"sinkhorn"``.
        labels: Label of every sample (n), if given.
        index: Place of every sample in its data source (n), where it was measured over one; images
            that could not be read, or were not chosen, are missing from it.
        features: How many directions the features of these samples fill, where they were measured:
            by ``"backbone"`` (what it gives the head) and ``"bottleneck"`` (just before the
            prototypes, of unit norm where the method scales them).
    """

    n: int
    probabilities: Vector
    winners: Counts
    winner_probabilities: Shares
    groups: Counts | None
    unique_winners: Counts | None
    unique_winner_probabilities: Shares | None
    copy_winners: Counts | None
    mean_entropy: float
    mean_entropy_error: float
    mean_max_probability: float
    probability_variances: Vector
    temperature: float
    temperature_source: str | None = None
    centre: CentreSource = "none"
    centre_source: str | None = None
    vmf: bool = False
    branch: Branch | None = None
    prior: Prior = "uniform"
    assignment: Literal["softmax", "sinkhorn"] = "softmax"
    labels: Counts | None = None
    index: npt.NDArray[np.intp] | None = None
    features: Mapping[str, FeatureSpread] = field(default_factory=dict)

    def __repr__(self) -> str:
        k, unique = len(self.probabilities), self.redundancy_factors
        classes = f"k={k}" if unique is None else f"k={k}, m={len(unique)}"
        return (
            f"MLCD(n={self.n}, {classes}, temperature={self.temperature:g}, "
            f"centre={self.centre!r}, mutual_information={self.mutual_information:.4g})"
        )

    @property
    def counts(self) -> Counts:
        """Samples whose most likely prototype is this one (k, int64); of exact copies one wins."""
        return self._counts("k")

    @property
    def mutual_information(self) -> float:
        """I(x; k) = H(p) - mean H(p(.|x)), nats: the score that duplication cannot inflate."""
        return max(0.0, self.k.entropy - self.mean_entropy)

    @property
    def mutual_information_corrected(self) -> float:
        """The same, with the bias of a finite sample removed to first order.

        The entropy of a mean of N samples is too small by sum_k Var[p(k|x)] / (2 N p_k) on
        average (second-order delta method). For one-hot p(k|x) this is the correction of Miller
        and Madow (1955), (K - 1) / 2N.
        """
        held = self.probabilities > 0
        spread = self.probability_variances[held] / self.probabilities[held]
        return self.mutual_information + float(spread.sum()) / (2 * self.n)

    @cached_property
    def k(self) -> Divergences:
        """Entropy and divergences over the K prototypes."""
        return compare_with_prior(self.probabilities, self.prior)

    @cached_property
    def m(self) -> Divergences | None:
        """The same over the M unique prototypes; ``None`` without groups."""
        q = self.unique_probabilities
        return None if q is None else compare_with_prior(q, self.prior)

    @cached_property
    def unique_probabilities(self) -> Vector | None:
        """Mass of every group (m, float64): q_m = sum of p_k over group m."""
        return None if self.groups is None else self._masses("m")

    @cached_property
    def redundancy_factors(self) -> Counts | None:
        """Prototypes in every group (m, int64), r_m, by group number; they sum to K."""
        return None if self.groups is None else np.bincount(self.groups).astype(np.int64)

    @property
    def kl_to_redundancy(self) -> float | None:
        """KL(q || r/K): 0 if every copy carries the same mass; at most KL(p || uniform)."""
        if self.unique_probabilities is None or self.redundancy_factors is None:
            return None
        shares = self.redundancy_factors / len(self.probabilities)
        return kl_divergence(self.unique_probabilities, shares)

    @property
    def hidden_divergence(self) -> float | None:
        """Log M - H(r/K): what KL(q || uniform) becomes when p is exactly uniform over K."""
        if self.redundancy_factors is None:
            return None
        shares = self.redundancy_factors / len(self.probabilities)
        return max(0.0, math.log(len(shares)) - entropy(shares))

    def usage(self, level: Level = "k") -> Usage:
        """Used and dead classes by argmax, beside what chance allows."""
        return measure_usage(self._counts(level))

    def rarefaction(self, sizes: Counts | None = None, *, level: Level = "k") -> Vector:
        """Classes that samples of ``sizes`` (20 even steps up to N) would have used, on average."""
        if sizes is None:
            sizes = np.linspace(0, self.n, 21).astype(np.int64)[1:]
        return rarefaction(self._counts(level), sizes)

    def rank_frequency(self, level: Level = "k") -> Vector:
        """Class masses in falling order (k or m, float64); they sum to 1."""
        return np.sort(self._masses(level))[::-1]

    def split_mass(self, level: Level = "k") -> tuple[float, float, float]:
        """Mass of the top 10 %, next 40 %, last 50 % of the classes: 0.1, 0.4, 0.5 if uniform."""
        return split_mass(self._masses(level))

    def agreement(self, level: Level = "k") -> LabelAgreement | None:
        """Mutual information of classes and labels, and merged labels; ``None`` without labels."""
        return None if self.labels is None else agree_with_labels(self._won(level), self.labels)

    def top_classes(self, number: int = 10) -> pd.DataFrame:
        """The most probable unique classes: ``group, probability, redundancy_factor, count``."""
        import pandas as pd  # heavy

        masses = self._masses("m")
        top = np.argsort(-masses, kind="stable")[:number]
        return pd.DataFrame(
            {
                "group": top,
                "probability": masses[top],
                "redundancy_factor": np.bincount(self._grouped()[0])[top],
                "count": self._counts("m")[top],
            }
        )

    def to_frame(self) -> pd.DataFrame:
        """One row per prototype.

        Returns:
            Columns ``prototype``, ``probability``, ``count``, and with groups also ``group``,
            ``group_probability`` and ``redundancy_factor``.
        """
        import pandas as pd  # heavy

        columns: dict[str, Any] = {
            "prototype": np.arange(len(self.probabilities)),
            "probability": self.probabilities,
            "count": self.counts,
        }
        if self.groups is not None:
            columns["group"] = self.groups
            columns["group_probability"] = self._masses("m")[self.groups]
            columns["redundancy_factor"] = np.bincount(self.groups)[self.groups]
        return pd.DataFrame(columns)

    def assignments(self) -> pd.DataFrame:
        """One row per sample: the prototype and the unique class that it is assigned to.

        Returns:
            Columns ``sample`` (place in the data source), ``prototype``, ``probability`` (its
            p(k|x)), with groups also ``group`` and ``group_probability`` (its q_m(x)), and with
            labels also ``label``.
        """
        import pandas as pd  # heavy

        columns: dict[str, Any] = {
            "sample": np.arange(self.n) if self.index is None else self.index,
            "prototype": self.winners,
            "probability": self.winner_probabilities,
        }
        if self.groups is not None:
            columns["group"] = self.unique_winners
            columns["group_probability"] = self.unique_winner_probabilities
        if self.labels is not None:
            columns["label"] = self.labels
        return pd.DataFrame(columns)

    def to_dict(self) -> MLCDDocument:
        """The ``mlcd`` object of a report, in plain values; all that is in nats is so."""
        levels: tuple[Level, ...] = ("k",) if self.groups is None else ("k", "m")
        usage: dict[Level, dict[str, float]] = {}
        for level in levels:
            names = ("head_mass", "medium_mass", "tail_mass")
            masses = zip(names, self.split_mass(level), strict=True)
            usage[level] = asdict(self.usage(level)) | dict(masses)
        return {
            "n": self.n,
            "branch": self.branch,
            "temperature": self.temperature,
            "centre": self.centre,
            "mean_entropy": self.mean_entropy,
            "mutual_information": self.mutual_information,
            "k": self.k.to_dict(),
            "m": None if self.m is None else self.m.to_dict(),
            "usage": usage,
            "prior": self.prior,
            "assignment": self.assignment,
            "mutual_information_corrected": self.mutual_information_corrected,
            "mean_entropy_error": None if self.n < 2 else self.mean_entropy_error,
            "mean_max_probability": self.mean_max_probability,
            "kl_to_redundancy": self.kl_to_redundancy,
            "hidden_divergence": self.hidden_divergence,
            "labels": self._labels_dict(levels),
            "temperature_source": self.temperature_source,
            "centre_source": self.centre_source,
            "vmf": self.vmf,
            "features": {place: spread.to_dict() for place, spread in self.features.items()},
        }

    def _labels_dict(self, levels: tuple[Level, ...]) -> LabelsDocument | None:
        if self.labels is None:
            return None
        found = {level: self.agreement(level) for level in levels}
        agreement = {
            level: {"mutual_information": a.mutual_information, "merged": a.merged}
            for level, a in found.items()
            if a is not None
        }
        return cast("LabelsDocument", {**agreement, "number": len(np.unique(self.labels))})

    def _masses(self, level: Level) -> Vector:
        if level == "k":
            return self.probabilities
        return np.bincount(self._grouped()[0], weights=self.probabilities).astype(np.float64)

    def _counts(self, level: Level) -> Counts:
        return np.bincount(self._won(level), minlength=len(self._masses(level)))

    def _won(self, level: Level) -> Counts:
        return self.winners if level == "k" else self._grouped()[1]

    def _grouped(self) -> tuple[Counts, Counts]:
        """Group of every prototype, and the winning group of every sample."""
        if self.groups is None or self.unique_winners is None:
            raise ParameterError(
                "the groups of duplicate prototypes are unknown, so there is no m level.",
                hint="Pass groups=audit_prototypes(prototypes).groups to MLCDAccumulator.",
            )
        return self.groups, self.unique_winners
