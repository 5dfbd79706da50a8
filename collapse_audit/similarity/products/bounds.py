r"""How far a computed cosine can be from the true one, by arithmetic, and why.

The engine takes the clear cases from a fast, inexact product and leaves the rest to exact
arithmetic. That is sound only if the *clear* is proved, so every product comes with a bound
:math:`E` on :math:`\lvert \hat s_{ij} - \langle u_i, u_j\rangle\rvert` for unit rows.

**Rounding of the inputs.** Let :math:`h_i` be the row really multiplied and
:math:`e = \max_i \lVert u_i - h_i \rVert`. Then

.. math:: \lvert\langle u_i,u_j\rangle - \langle h_i,h_j\rangle\rvert
    = \lvert\langle u_i - h_i, u_j\rangle + \langle h_i, u_j - h_j\rangle\rvert
    \le e\,(1 + \max_i\lVert h_i\rVert) \le e\,(2 + e)

by Cauchy-Schwarz; rows of norm at most n have n in place of 1 and 2 n in place of 2. :math:`e` is
*measured* (:func:`measured_bound`), which halves the bound that the format alone gives
(:func:`format_bound`).

**Accumulation.** A sum of d products in any order, each operation rounding to nearest with unit
roundoff u, is off by at most :math:`\gamma_d \lVert h_i\rVert\lVert h_j\rVert`,
:math:`\gamma_n = nu/(1-nu)` (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed.,
section 3.1, and eq. 3.5 with Cauchy-Schwarz). Products of two bf16 or two TF32 numbers are exact
in float32. Tensor cores truncate instead of rounding and their order is not documented (Fasi,
Higham, Mikaitis and Pranesh 2021, PeerJ Computer Science 7:e330): there u = 2^-23 and a factor of
two are used, which is a model of the hardware and therefore comes with a self-test on the device.
Sums of whole numbers are exact: there only the rounding of the inputs counts.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

Arithmetic: TypeAlias = Literal["float32", "tf32", "bfloat16"]

# Unit roundoff of the inputs: half a unit in the last place of a significand of 24, 11, 8 bits.
_INPUT_ROUNDOFF: dict[Arithmetic, float] = {
    "float32": 2.0**-24,
    "tf32": 2.0**-11,
    "bfloat16": 2.0**-8,
}
_FLOAT32_ROUNDOFF = 2.0**-24
_TRUNCATION_ROUNDOFF = 2.0**-23
_FLOAT64_ROUNDOFF = 2.0**-53
# Operations beyond the d products and sums: the two normalisations and their square roots.
_EXTRA_OPERATIONS = 8


def gamma(operations: int, roundoff: float) -> float:
    r"""Higham's :math:`\gamma_n = nu/(1 - nu)`, n roundings of unit u; infinite from nu = 1."""
    product = operations * roundoff
    return product / (1.0 - product) if product < 1.0 else float("inf")


def accumulation_bound(d: int, *, largest_norm: float = 1.0, truncating: bool = False) -> float:
    """Error of a float32 sum of d exact products of rows of at most this norm."""
    # truncating: the hardware does so instead of rounding (tensor cores)
    roundoff = _TRUNCATION_ROUNDOFF if truncating else _FLOAT32_ROUNDOFF
    factor = 2.0 if truncating else 1.0
    return factor * gamma(d + _EXTRA_OPERATIONS, roundoff) * largest_norm**2


def measured_bound(
    d: int, *, residual: float, norm: float = 1.0, truncating: bool = False
) -> float:
    """Error of an inner product of rounded rows whose rounding error was measured."""
    # residual: largest norm of (row - multiplied row); norm: the largest of a row, 1 for a cosine.
    # 0.004 for bf16 unit rows at d = 256.
    largest_norm = norm + residual
    inputs = residual * (norm + largest_norm)
    return inputs + accumulation_bound(d, largest_norm=largest_norm, truncating=truncating)


def format_bound(arithmetic: Arithmetic, d: int, *, truncating: bool = False) -> float:
    """Error of a cosine computed from rows rounded to nearest, for any unit rows whatever."""
    # The worst case of measured_bound: each entry is off by at most a relative u, so the residual
    # is at most u and the multiplied row at most 1 + u long. Sums are float32. At d = 256: 1.6e-5
    # (float32), 1.0e-3 (TF32), 7.9e-3 (bf16).
    unit = _INPUT_ROUNDOFF[arithmetic]
    # Entries below the smallest normal number are flushed or rounded absolutely: d of them at most.
    tiny = d**0.5 * 2.0**-126
    return measured_bound(d, residual=unit + tiny, truncating=truncating)


def float64_bound(d: int) -> float:
    """Error of a cosine computed in float64 as dot / (norm norm) from the stored rows."""
    # The dot product is off by gamma_d, each norm by half that, and three more operations follow:
    # 5.9e-14 at d = 256. Pairs closer to the threshold are decided exactly.
    return gamma(2 * d + _EXTRA_OPERATIONS, _FLOAT64_ROUNDOFF)


def chord_bound(d: int) -> float:
    """Relative error of a squared distance summed in float64 from differences of exact rows."""
    # A difference is off by u, its square by three of them, their sum by d more; twice that leaves
    # room for the rounding of what it is compared with.
    return 2.0 * gamma(d + _EXTRA_OPERATIONS, _FLOAT64_ROUNDOFF)


def lifted_bound(d: int) -> float:
    """Error of a float64 product of lifted rows (:mod:`.lifted`) in the place of a cosine."""
    # The product of rows of norm sqrt(1.5) at most is off by 1.5 gamma_(d+2), each half square of a
    # norm by gamma_d / 2, and a few roundings follow.
    return 4.0 * gamma(2 * d + 2 * _EXTRA_OPERATIONS, _FLOAT64_ROUNDOFF)
