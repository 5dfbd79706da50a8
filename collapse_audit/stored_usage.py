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


def measure_stored_usage(usage: npt.ArrayLike) -> StoredUsage:
    """Describe the usage of codes (k, not negative, in any unit), as :class:`StoredUsage` does.

    Args:
        usage: Counts, or running averages of them.

    Returns:
        What they say.

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
    p = shares[shares > 0] / shares.sum()
    dead = int((shares < DEAD_SHARE * shares.mean()).sum())
    return StoredUsage(
        perplexity=float(np.exp(-(p * np.log(p)).sum())),
        used=counts.size - dead,
        dead=dead,
        unused=int((counts == 0).sum()),
    )
