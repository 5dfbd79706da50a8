"""How often training took each code of a codebook, as its file tells: perplexity and dead codes."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from collapse_audit.errors import ParameterError

#: A code is dead if its usage is below this share of the mean: so Mimi chooses the codes that it
#: replaces (``threshold_usage_ratio`` in kyutai-labs/moshi, quantization/core_vq.py). Unlike the
#: counts by which EnCodec and lucidrains do, it does not depend on the size of a batch.
DEAD_SHARE: Final = 0.1


@dataclass(frozen=True, slots=True)
class StoredUsage:
    """How evenly codes are used.

    Attributes:
        perplexity: exp of the entropy of the usage: as many equally used codes have this entropy.
            From 1 to their number.
        used: Codes that are not dead.
        dead: Codes whose usage is below a tenth of the mean.
        unused: Codes of no usage at all; running averages rarely get there.
    """

    perplexity: float
    used: int
    dead: int
    unused: int

    def to_dict(self) -> dict[str, float]:
        """The values by name."""
        return asdict(self)


def measure_stored_usage(
    usage: npt.ArrayLike, groups: npt.NDArray[np.int64] | None = None
) -> StoredUsage:
    """Describe the usage of codes, or of groups of them.

    Args:
        usage: Counts of each code, or running averages of them (k, at least 0, in any unit).
        groups: Group of each code (k), such as :attr:`CollapseAudit.groups`, so that duplicates
            count as one code. By default each code is one.

    Returns:
        Perplexity, and used and dead codes.

    Raises:
        ParameterError: If they are not finite numbers of at least 0, some of them above.

    Example:
        >>> measure_stored_usage([6, 6, 6, 6, 0, 0.1]).dead
        2
    """
    counts = np.asarray(usage, dtype=np.float64).reshape(-1)
    largest = counts.max(initial=0)
    if not (np.isfinite(counts).all() and (counts >= 0).all() and largest > 0):
        raise ParameterError("usage must be finite numbers of at least 0, and not all of them 0.")
    shares = counts / largest  # a sum of what is near the largest float64 would overflow
    if groups is not None:
        shares = np.bincount(groups, weights=shares)
    p = shares[shares > 0] / shares.sum()
    dead = int((shares < DEAD_SHARE * shares.mean()).sum())
    return StoredUsage(
        perplexity=float(np.exp(-(p * np.log(p)).sum())),
        used=shares.size - dead,
        dead=dead,
        unused=int((shares == 0).sum()),
    )
