"""Dead rows of a head, and what its live rows alone give."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from collapse_audit.norm_gap import find_norm_gap
from collapse_audit.prototypes import Prototypes
from collapse_audit.redundancy import Redundancy, measure_redundancy
from collapse_audit.similarity import Progress, silent


@dataclass(frozen=True, slots=True, eq=False)
class DeadRows:
    """Rows whose norms lie below a gap, and the redundancy of the others.

    Attributes:
        rows: Their indices, rising.
        largest_norm: Largest norm of a dead row.
        smallest_live_norm: Smallest norm of a live one, at least ten times that.
        live: Groups of the live rows alone, at the same threshold; row i is the i-th live one.
    """

    rows: npt.NDArray[np.intp]
    largest_norm: float
    smallest_live_norm: float
    live: Redundancy

    @property
    def count(self) -> int:
        """Number of dead rows."""
        return len(self.rows)

    @property
    def note(self) -> str:
        """The finding in one sentence, for a report."""
        live = self.live
        return (
            f"{self.count:,} of {self.count + live.k:,} rows are dead: their norms are at most "
            f"{self.largest_norm:.3g}, all others at least {self.smallest_live_norm:.3g}; of the "
            f"{live.k:,} live rows alone {live.num_unique:,} are unique"
        )


def measure_dead_rows(
    prototypes: Prototypes,
    measured: Redundancy,
    *,
    device: str = "auto",
    progress: Progress = silent,
) -> DeadRows | None:
    """Find the dead rows of a head that was measured; ``None`` where its norms have no gap."""
    gap = find_norm_gap(prototypes.norms, prototypes.d)
    if gap is None:
        return None
    live = measure_redundancy(
        prototypes.take(gap.live),
        epsilon=measured.epsilon,
        metric=measured.metric,
        radius=measured.radius,
        sweep=(),
        nearest=False,
        device=device,
        progress=progress,
    )
    return DeadRows(gap.dead, gap.largest_dead, gap.smallest_live, live)
