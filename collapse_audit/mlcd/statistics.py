"""What a distribution over latent classes says: entropy, divergences, usage. All in nats."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from collapse_audit.errors import ParameterError

Prior: TypeAlias = Literal["uniform", "power-law"]
Vector: TypeAlias = npt.NDArray[np.float64]
Counts: TypeAlias = npt.NDArray[np.int64]

POWER_LAW_EXPONENT = 0.25
"""Exponent of the power-law prior of PMSN (Assran et al. 2023)."""

_HEAD, _MEDIUM = 0.1, 0.5


@dataclass(frozen=True, slots=True)
class Divergences:
    """How a distribution over latent classes compares with a prior, in nats.

    Attributes:
        entropy: Shannon entropy, in [0, log of the number of classes].
        perplexity: exp(entropy): the number of equally likely classes with this entropy.
        kl_to_prior: KL(p || prior), what MSN's mean-entropy maximisation minimises.
        kl_from_prior: KL(prior || p); infinite if a class has no mass at all.
        js: Jensen-Shannon divergence, in [0, log 2].
        tv: Total variation distance, in [0, 1].
    """

    entropy: float
    perplexity: float
    kl_to_prior: float
    kl_from_prior: float
    js: float
    tv: float

    def to_dict(self) -> dict[str, float | None]:
        """The six values by name; an infinite one becomes ``None``, which JSON can hold."""
        return {name: v if math.isfinite(v) else None for name, v in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Usage:
    """Classes that win the argmax for at least one sample.

    Attributes:
        used: Number of such classes.
        dead: Number of the others.
        expected_used: Mean of ``used`` if every sample drew its class uniformly:
            K (1 - (1 - 1/K)^N). With N samples no more can be asked for.
    """

    used: int
    dead: int
    expected_used: float


@dataclass(frozen=True, slots=True)
class LabelAgreement:
    """Latent classes (by argmax) against known labels.

    Attributes:
        labels: Number of distinct labels seen.
        mutual_information: Mutual information of label and latent class, in nats.
        merged: Labels whose most frequent latent class is also that of another label.
    """

    labels: int
    mutual_information: float
    merged: int


def entropy(p: npt.ArrayLike) -> float:
    """Shannon entropy of probabilities in nats, at least 0, with 0 log 0 = 0."""
    masses = np.asarray(p, dtype=np.float64)
    masses = masses[masses > 0]
    return max(0.0, float(-(masses * np.log(masses)).sum()))


def kl_divergence(p: Vector, q: Vector) -> float:
    """KL(p || q) in nats, at least 0; infinite if p has mass where q has none."""
    present = p > 0
    if (q[present] <= 0).any():
        return math.inf
    return max(0.0, float((p[present] * np.log(p[present] / q[present])).sum()))


def prior_masses(prior: str, classes: int) -> Vector:
    """Masses of a prior for so many classes, descending; another name is a ParameterError."""
    # ``"uniform"`` (DINO, iBOT, SwAV, MSN), or ``"power-law"``, the k^-0.25 of PMSN
    if prior == "uniform":
        return np.full(classes, 1.0 / classes)
    if prior == "power-law":
        masses = np.arange(1, classes + 1, dtype=np.float64) ** -POWER_LAW_EXPONENT
        return np.asarray(masses / masses.sum(), dtype=np.float64)
    raise ParameterError(f"prior must be 'uniform' or 'power-law', got {prior!r}.")


def compare_with_prior(p: Vector, prior: Prior) -> Divergences:
    """Entropy of a distribution and divergences from a prior, class by class in order of mass."""
    # Latent classes have no order of their own, so the largest class meets the largest mass of the
    # prior. Of all pairings this one has the smallest KL(p || prior).
    ranked = np.sort(p)[::-1]
    target = prior_masses(prior, len(p))
    mixture = (ranked + target) / 2
    nats = entropy(ranked)
    return Divergences(
        entropy=nats,
        perplexity=math.exp(nats),
        kl_to_prior=kl_divergence(ranked, target),
        kl_from_prior=kl_divergence(target, ranked),
        js=(kl_divergence(ranked, mixture) + kl_divergence(target, mixture)) / 2,
        tv=float(np.abs(ranked - target).sum() / 2),
    )


def measure_usage(counts: Counts) -> Usage:
    """Used and dead classes, of the samples won by each, and what chance allows for this number."""
    used = int((counts > 0).sum())
    classes, n = len(counts), int(counts.sum())
    # expm1 and log1p: at K = 262,144 the plain formula loses the digits that matter
    chance = -math.expm1(n * math.log1p(-1 / classes)) if classes > 1 else float(n > 0)
    return Usage(used=used, dead=classes - used, expected_used=classes * chance)


def rarefaction(counts: Counts, sizes: npt.ArrayLike) -> Vector:
    """Classes that samples of sizes from 0 to N would have used, of the samples won by each."""
    # Hurlbert 1971: E[used(n)] = sum_k 1 - binom(N - c_k, n) / binom(N, n). A curve that still
    # rises at N says that more images would find more classes.
    from scipy.special import gammaln  # heavy

    n = np.atleast_1d(np.asarray(sizes, dtype=np.int64))
    total = int(counts.sum())
    if n.size and not (n.min() >= 0 and n.max() <= total):
        raise ParameterError(f"rarefaction sizes must lie between 0 and N = {total}.")
    # classes with equal counts contribute equally: few distinct counts, however many classes
    distinct, classes = np.unique(counts[counts > 0], return_counts=True)
    rest = total - distinct[:, None] - n[None, :]
    possible = rest >= 0
    log_missed = (
        gammaln(total - distinct + 1)[:, None]
        - gammaln(np.where(possible, rest, 0) + 1)
        - gammaln(total + 1)
        + gammaln(total - n + 1)[None, :]
    )
    missed = np.where(possible, np.exp(np.minimum(log_missed, 0.0)), 0.0)
    return np.asarray(classes @ (1.0 - missed), dtype=np.float64)


def split_mass(p: Vector) -> tuple[float, float, float]:
    """Mass of the top 10 % of the classes by rank, of the next 40 % and of the last 50 %."""
    # Fractions of a class are interpolated; a uniform distribution gives 0.1, 0.4 and 0.5. The cut
    # points are this package's own: the literature has none.
    cumulative = np.concatenate([[0.0], np.cumsum(np.sort(p)[::-1])])
    head, medium = np.interp(np.array([_HEAD, _MEDIUM]) * len(p), np.arange(len(p) + 1), cumulative)
    return float(head), float(medium - head), float(cumulative[-1] - medium)


def agree_with_labels(winners: Counts, labels: Counts) -> LabelAgreement:
    """Compare the winning latent class of every sample (n) with its label (n)."""
    label_names, label = np.unique(labels, return_inverse=True)
    class_names, winner = np.unique(winners, return_inverse=True)
    cells, joint = np.unique(label * len(class_names) + winner, return_counts=True)
    rows, columns = np.divmod(cells, len(class_names))
    information = (
        entropy(np.bincount(label) / len(label))
        + entropy(np.bincount(winner) / len(winner))
        - entropy(joint / len(label))
    )
    # ascending counts, so the last write per label is its most frequent class
    order = np.argsort(joint, kind="stable")
    main = np.zeros(len(label_names), dtype=np.int64)
    main[rows[order]] = columns[order]
    sharing = np.bincount(main, minlength=len(class_names))[main]
    return LabelAgreement(
        labels=len(label_names),
        mutual_information=max(0.0, information),
        merged=int((sharing > 1).sum()),
    )
