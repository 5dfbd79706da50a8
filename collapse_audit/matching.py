"""Which prototypes of two heads belong together where they share no index: matching by cosine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from collapse_audit.errors import ParameterError
from collapse_audit.prototypes import Prototypes, as_prototypes
from collapse_audit.report.documents import MatchingDocument
from collapse_audit.similarity import Progress, nearest_cosine_quantiles, silent
from collapse_audit.similarity.nearest import first_copies
from collapse_audit.similarity.products.rows import Float64, Index, parts

if TYPE_CHECKING:
    import torch

Method: TypeAlias = Literal["optimal", "greedy"]

#: Cosines that are held at once for the optimal matching: 2.1 GB, as scipy wants float64.
MOST_PAIRS: Final = 1 << 28
_ROWS, _COLUMNS = 1024, 4096
# Cosines this close are equal: far above what a float64 product rounds, so that of bit-equal
# prototypes the first is taken, however a product is blocked.
_EQUAL = 1e-12


@dataclass(frozen=True, slots=True, eq=False)
class Matching:
    """Result of :func:`match_prototypes`.

    Attributes:
        d: Dimension of both sets.
        nearest_in_b: For each prototype of A the one of B with the largest cosine (k_a, int64), the
            lowest index among equals.
        cosine_to_b: That cosine (k_a, -1 to 1).
        nearest_in_a: The same for each prototype of B (k_b, int64).
        cosine_to_a: That cosine (k_b, -1 to 1).
        partner: For each prototype of A its partner in B (k_a, int64), no two the same, -1 where it
            has none; ``None`` if the matching was greedy.
        partner_cosine: Cosine of each pair (k_a, -1 to 1), NaN where there is none; or ``None``.
    """

    d: int
    nearest_in_b: npt.NDArray[np.int64]
    cosine_to_b: Float64
    nearest_in_a: npt.NDArray[np.int64]
    cosine_to_a: Float64
    partner: npt.NDArray[np.int64] | None = None
    partner_cosine: Float64 | None = None

    @property
    def k(self) -> tuple[int, int]:
        """Prototypes in A and in B."""
        return len(self.nearest_in_b), len(self.nearest_in_a)

    @property
    def mean_max_cosine(self) -> tuple[float, float]:
        """Mean cosine to the nearest one in the other set, of A and of B (-1 to 1)."""
        return float(self.cosine_to_b.mean()), float(self.cosine_to_a.mean())

    @property
    def random_max_cosine(self) -> tuple[float, float]:
        """Median cosine to the nearest of as many random directions, for A and for B."""
        a, b = (nearest_cosine_quantiles(0.5, k + 1, self.d).item() for k in self.k)
        return b, a

    @property
    def pw_mcc(self) -> float | None:
        """Mean cosine of the min(k_a, k_b) pairs (-1 to 1); ``None`` if the matching was greedy."""
        return None if self.partner_cosine is None else float(np.nanmean(self.partner_cosine))

    def to_dict(self) -> MatchingDocument:
        """Plain values, as a comparison in JSON holds them."""
        cosines = self.partner_cosine
        summary = None if cosines is None else np.nanquantile(cosines, [0, 0.5, 1]).tolist()
        return {
            "k": list(self.k),
            "mean_max_cosine": list(self.mean_max_cosine),
            "random_max_cosine": list(self.random_max_cosine),
            "pw_mcc": self.pw_mcc,
            "pair_cosine": summary and dict(zip(("min", "median", "max"), summary, strict=True)),
        }

    def __repr__(self) -> str:
        pw_mcc = "" if self.pw_mcc is None else f", pw_mcc={self.pw_mcc:.4g}"
        return f"Matching(k={self.k}{pw_mcc})"


def match_prototypes(
    a: Prototypes | npt.ArrayLike | torch.Tensor,
    b: Prototypes | npt.ArrayLike | torch.Tensor,
    *,
    matching: Method = "optimal",
    progress: Progress = silent,
) -> Matching:
    r"""Match the prototypes of two heads by direction, whatever their order and number.

    Greedy: each prototype takes the one of the other set with the largest cosine, and several may
    take the same. Optimal: the :math:`\min(k_a, k_b)` one-to-one pairs of largest total cosine. The
    mean cosine of these is the pairwise dictionary mean correlation coefficient (PW-MCC; Song et
    al. 2025, arXiv 2505.20254),

    .. math:: \max_\pi \frac{1}{\min(k_a, k_b)} \sum_i \langle u_i, u'_{\pi(i)} \rangle ,

    with the sign of the cosine, as in the code of its authors: opposite prototypes stand for
    opposite features. Implementations that match by :math:`\lvert\cos\rvert` give at least as much.

    Copies of a prototype can have one partner each, so the redundancy of one head lowers the
    PW-MCC with another that lacks it. The unique prototypes of two audits,
    ``CollapseAudit.unique_prototypes``, are matched without that.

    Args:
        a: The prototypes of a head, or their matrix (k_a x d).
        b: Those of another, which must read the same features (k_b x d).
        matching: ``"optimal"``, which gives the greedy matching too and holds k_a x k_b cosines (8
            bytes each, at most 2^28 of them), or ``"greedy"`` alone, in bounded memory.
        progress: Called with (stage, done, total) while it runs.

    Returns:
        Partners and cosines in both directions. Of bit-equal prototypes the lowest index is taken.

    Raises:
        ParameterError: If d differs, there are too many pairs for the optimal matching, or there is
            no such matching.

    Example:
        >>> rows = np.eye(4)
        >>> found = match_prototypes(rows, rows[[2, 0, 3]])
        >>> found.partner.tolist(), found.pw_mcc
        ([1, -1, 0, 2], 1.0)
    """
    a, b = as_prototypes(a), as_prototypes(b)
    if matching not in get_args(Method):
        raise ParameterError(f"matching must be optimal or greedy, got {matching!r}.")
    if a.d != b.d:
        raise ParameterError(
            f"prototypes in {a.d} and in {b.d} dimensions cannot be matched.",
            hint="Match heads that read the same features.",
        )
    if matching == "optimal" and a.k * b.k > MOST_PAIRS:
        raise ParameterError(
            f"an optimal matching of {a.k} with {b.k} prototypes takes {a.k * b.k * 8 / 1e9:.1f} "
            f"GB; at most {MOST_PAIRS * 8 / 1e9:.1f} GB are allowed.",
            hint="Say `matching=greedy`, which needs no matrix.",
        )
    of_a, of_b = _Nearest(a.k), _Nearest(b.k)
    # scipy copies a matrix of more rows than columns
    costs = np.empty(sorted((a.k, b.k))) if matching == "optimal" else None
    for part in parts(a.k, _ROWS):
        rows = a.unit_rows(part)
        for other in parts(b.k, _COLUMNS):
            tile = rows @ b.unit_rows(other).T
            of_a.offer(part, other, tile)
            of_b.offer(other, part, tile.T)
            if costs is not None:
                (costs if a.k <= b.k else costs.T)[part, other] = -tile
        progress("matching", part.stop, a.k)
    one_sided = of_a.index, of_a.cosine(a, b), of_b.index, of_b.cosine(b, a)
    if costs is None:
        return Matching(a.d, *one_sided)
    paired, partners = _optimal_pairs(a, b, costs)
    partner, cosine = np.full(a.k, -1, dtype=np.int64), np.full(a.k, np.nan)
    partner[paired], cosine[paired] = partners, _cosines(a, paired, b, partners)
    return Matching(a.d, *one_sided, partner, cosine)


class _Nearest:
    """The nearest one in the other set, for each prototype of one, by the tiles seen so far."""

    def __init__(self, k: int) -> None:
        self.index = np.zeros(k, dtype=np.int64)
        self._largest = np.full(k, -np.inf)

    def offer(self, rows: slice, columns: slice, tile: Float64) -> None:
        """Take what is larger in a tile of cosines; the columns come in rising order."""
        largest = tile.max(axis=1)
        larger = np.flatnonzero(largest > self._largest[rows] + _EQUAL)
        first = (tile[larger] >= largest[larger, None] - _EQUAL).argmax(axis=1)
        self.index[rows][larger] = columns.start + first
        self._largest[rows][larger] = largest[larger]

    def cosine(self, own: Prototypes, other: Prototypes) -> Float64:
        """Of each with its nearest one."""
        return _cosines(own, np.arange(own.k), other, self.index)


def _cosines(a: Prototypes, rows: Index, b: Prototypes, columns: Index) -> Float64:
    """Of pairs of prototypes."""
    found = np.empty(len(rows))
    for part in parts(len(rows), _ROWS):
        pairs = a.unit_rows(rows[part]), b.unit_rows(columns[part])
        found[part] = np.einsum("kd,kd->k", *pairs).clip(-1, 1)
    return found


def _optimal_pairs(a: Prototypes, b: Prototypes, costs: Float64) -> tuple[Index, Index]:
    """One-to-one pairs of least cost; between copies the lowest index with the lowest."""
    from scipy.optimize import linear_sum_assignment  # takes longer to import than a small audit

    pairs = linear_sum_assignment(costs)
    rows, columns = pairs if a.k <= b.k else pairs[::-1]
    copies_a, copies_b = first_copies(a), first_copies(b)
    order = np.lexsort((copies_b[columns], copies_a[rows]))
    return (
        _lowest_first(copies_a[rows[order]], copies_a),
        _lowest_first(copies_b[columns[order]], copies_b),
    )


def _lowest_first(wanted: Index, copy_of: Index) -> Index:
    """The copies of wanted prototypes, each time the lowest index that is not yet taken."""
    places = np.argsort(wanted, kind="stable")
    rank = np.arange(len(wanted)) - np.searchsorted(wanted[places], wanted[places])
    by_copy = np.argsort(copy_of, kind="stable")
    taken = np.empty_like(wanted)
    taken[places] = by_copy[np.searchsorted(copy_of[by_copy], wanted[places]) + rank]
    return taken
