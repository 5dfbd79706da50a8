"""Stored values as whole numbers times powers of two, which is what they are."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from collapse_audit.similarity.products.rows import Float64, Mask


def whole_numbers(
    rows: npt.NDArray[np.floating],
) -> tuple[Float64, Mask, npt.NDArray[np.int64]]:
    """Rows in whole units, whether all their products are exact, and the unit, a power of two."""
    mantissas, exponents = np.frexp(rows.astype(np.float64))
    digits = np.ldexp(mantissas, 53).astype(np.int64)
    trailing = np.frexp((digits & -digits).astype(np.float64))[1] - 1
    lowest = np.where(digits != 0, exponents - 53 + trailing, np.iinfo(np.int32).max)
    highest = np.where(digits != 0, exponents, np.iinfo(np.int32).min)
    scale, top = lowest.min(axis=1), highest.max(axis=1)
    bits = top.astype(np.int64) - scale
    exact = 2 * bits + rows.shape[1].bit_length() <= 53
    whole = np.ldexp(np.where(exact[:, None], rows.astype(np.float64), 0.0), -scale[:, None])
    return whole, exact, scale.astype(np.int64)


def as_integers(row: npt.NDArray[np.floating]) -> tuple[list[int], int]:
    """The row in whole units, and the power of two that a unit is."""
    mantissas, exponents = np.frexp(row.astype(np.float64))
    whole = np.ldexp(mantissas, 53).astype(np.int64)
    unit = int(exponents[whole != 0].min(initial=1024))
    shifts = (exponents - unit).tolist()
    return [m << max(s, 0) for m, s in zip(whole.tolist(), shifts, strict=True)], unit - 53
