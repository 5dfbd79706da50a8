"""A number counts only if its answer is right: every measurement is checked before it is kept."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import numpy.typing as npt

from benchmarks.methods import Answer, Method
from benchmarks.reference import Reference
from collapse_audit.similarity.products.bounds import format_bound


class DisagreementError(Exception):
    """An answer differs from the reference, or two methods from each other."""


def check_counts(method: Method, answer: Answer, reference: Reference) -> None:
    """Compare counts with the reference: equal, or for fp32 peers within what fp32 can tell.

    Args:
        method: What was measured.
        answer: What it found.
        reference: What is there.

    Raises:
        DisagreementError: If a count is wrong, or the answer contradicts itself.
    """
    if answer.faults:
        raise DisagreementError(f"{method.label}: {'; '.join(answer.faults)}.")
    exact, tighter, looser = (
        asdict(counts) for counts in (reference.counts, reference.tighter, reference.looser)
    )
    for name, found in answer.counts.items():
        if name == "communities":
            _check_communities(method, found, exact)
            continue
        # The cover is not monotone in epsilon, but where nothing is near it the three are equal.
        low, high = sorted((tighter[name], looser[name]))
        if method.certified or name == "greedy":
            low = high = exact[name]
        if not low <= found <= high:
            wanted = f"{low}" if low == high else f"{low} to {high}"
            raise DisagreementError(f"{method.label}: {name} is {found}, expected {wanted}.")


def _check_communities(method: Method, found: int, exact: dict[str, int]) -> None:
    """Balls with the largest first, another rule than ours: at least one in each component.

    Where one ball covers each component, that is all of them.
    """
    components = exact["components"]
    if found < components or (exact["greedy"] == components and found != components):
        raise DisagreementError(f"{method.label}: {found} communities in {components} components.")


def check_nearest(
    method: Method,
    found: npt.NDArray[np.float64],
    peer: Method,
    theirs: npt.NDArray[np.float64],
    d: int,
) -> None:
    """Compare the distances of the neighbours that a certified method and a fp32 peer found.

    Args:
        method: Ours.
        found: Cosine distances of its neighbours, exact (k).
        peer: The other one.
        theirs: Cosine distances of the peer's neighbours, evaluated in float64 (k).
        d: Dimension of the rows.

    Raises:
        DisagreementError: If the peer has a nearer neighbour for some row, or is further off than
            fp32 scores can be.
    """
    nearer = theirs < found * (1.0 - 1e-9) - 1e-28
    if nearer.any():
        raise DisagreementError(f"{peer.label} has nearer neighbours than {method.label}.")
    # Two scores are compared, each off by the bound and by the rounding of the norms.
    if (theirs - found).max() > 2.0 * (format_bound("float32", d) + 2.0**-22):
        raise DisagreementError(f"{peer.label} and {method.label} find different neighbours.")
