"""Prototypes: the rows of a head's last layer, and where they came from."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from collapse_audit.errors import ParameterError, PrototypeError

if TYPE_CHECKING:
    import torch

Branch: TypeAlias = Literal["teacher", "student"]
Metric: TypeAlias = Literal["cosine", "euclidean"]
Array: TypeAlias = npt.NDArray[np.float32] | npt.NDArray[np.float64]

#: Arteaga et al. 2026, headline table; 12.8 degrees.
DEFAULT_EPSILON: Final = 0.025

# Rows whose largest entry leaves this range are rescaled, so that float64 products of two rows
# neither overflow nor underflow. Only float64 weights can leave it.
_EXPONENT_LIMIT = 300


@dataclass(frozen=True, slots=True, eq=False)
class Prototypes:
    """The K prototypes of one head, compared by direction.

    Build one with :meth:`from_weight`, which checks every row.

    Attributes:
        rows: One prototype per row (k x d), float32, or float64 where the stored weights are.
            Exactly the stored values, up to a power of two per row where float64 weights leave
            the range 2^-300 to 2^300: direction is all that the similarity engine uses.
        lengths: Norm of every row of ``rows`` (k, float64).
        norms: Norm of every effective row (k, float64): ``|g|`` for a weight-normed layer,
            ``||w||`` for a plain one.
        bias: Bias of every prototype (k, float64), or ``None``. Cosine ignores it, logits do not.
        usage: How often training took each prototype (k, float64, not negative), where the file
            of a codebook tells; in units of its own.
        name: Name of the head inside its file, such as ``head`` or ``dino_head``.
        branch: ``"teacher"`` or ``"student"``; ``None`` where the method has one network.
        tensor_keys: Keys of the stored tensors, joined by ``/`` where dictionaries are nested.
        dtype: Type of the stored weights, such as ``"float16"``.
        source: What the user asked for: a path, an id, or ``"memory"``.
        family: Family of methods, such as ``"dino"``, where the file or the manifest tells.
        tensor_sha256: Key and SHA-256 of each stored tensor, where they are known.
        notes: What a reader of the report should know, one line each: that the weight was
            transposed, that the student stands in for the teacher, what was not read.
    """

    rows: Array
    lengths: npt.NDArray[np.float64]
    norms: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64] | None = None
    usage: npt.NDArray[np.float64] | None = None
    name: str = "prototypes"
    branch: Branch | None = None
    tensor_keys: tuple[str, ...] = ()
    dtype: str = "float32"
    source: str = "memory"
    family: str | None = None
    tensor_sha256: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    @np.errstate(invalid="ignore")  # casting a signalling NaN warns; every NaN is refused below
    def from_weight(
        cls,
        weight: npt.ArrayLike | torch.Tensor,
        *,
        scale: npt.ArrayLike | torch.Tensor | None = None,
        bias: npt.ArrayLike | torch.Tensor | None = None,
        usage: npt.ArrayLike | None = None,
        name: str = "prototypes",
        branch: Branch | None = None,
        tensor_keys: tuple[str, ...] = (),
        source: str = "memory",
        zero_rows: bool = False,
    ) -> Prototypes:
        r"""Take the weight matrix of a last layer, or the ``v`` and ``g`` of a weight-normed one.

        With ``scale`` the effective row is :math:`w_k = g_k v_k / \lVert v_k \rVert` (Salimans and
        Kingma 2016, eq. 2), evaluated from ``g`` and ``v`` and never from a cached weight, which
        is stale after an optimiser or EMA step.

        Args:
            weight: k x d, floating point, numpy or torch (any device, strides or gradient state).
                Memory is shared where the type allows it: copy first if training goes on.
            scale: The ``g`` of a weight-normed layer (k, or k x 1); ``None`` for a plain layer.
            bias: k values, for the few heads whose last layer has one (CAPI, lightly's SwAV).
            usage: k counts or running averages of them, as codebooks keep them (``cluster_size``).
            name: Name of the head inside its file.
            branch: Which network it belongs to, if the method has two.
            tensor_keys: Keys of the stored tensors.
            source: What the user asked for.
            zero_rows: Whether rows of a plain layer may be all zero: in the Euclidean metric these
                are points as others, but they have no direction.

        Returns:
            Prototypes that can be audited.

        Raises:
            PrototypeError: If the weight is not a floating-point matrix, K < 2, a value is not
                finite, a row has zero norm (with ``zero_rows``, if all have), or the usage is not k
                finite values of at least 0.

        Example:
            >>> Prototypes.from_weight(np.array([[3.0, 4.0], [0.0, 2.0]])).norms.tolist()
            [5.0, 2.0]
        """
        stored, dtype = _to_numpy(weight)
        if stored.ndim != 2 or 0 in stored.shape:
            raise PrototypeError(
                f"{name}: prototypes must be a k x d matrix, got shape {stored.shape}."
            )
        if len(stored) < 2:
            raise PrototypeError(
                f"{name}: K = 1, so there is nothing to compare.",
                hint="Redundancy needs at least two prototypes.",
            )
        rows, exponents = _within_range(stored)
        lengths = np.empty(len(rows))
        for start in range(0, len(rows), 1024):
            block = rows[start : start + 1024].astype(np.float64)
            lengths[start : start + 1024] = np.sqrt(np.einsum("kd,kd->k", block, block))
        _refuse_rows(~np.isfinite(lengths), name, "hold NaN or infinite values")
        if not zero_rows or scale is not None or not lengths.any():
            _refuse_rows(lengths == 0, name, "are all zero and have no direction")
        norms = np.ldexp(lengths, exponents)
        if scale is not None:
            factors = _to_numpy(scale, "scales")[0].astype(np.float64).reshape(-1)
            if factors.shape != norms.shape:
                raise PrototypeError(
                    f"{name}: {len(norms)} rows but {factors.size} weight-norm scales (weight_g)."
                )
            _refuse_rows(~np.isfinite(factors), name, "have a NaN or infinite weight-norm scale")
            _refuse_rows(factors == 0, name, "have a weight-norm scale of zero and no direction")
            if (factors < 0).any():
                rows = np.where(factors[:, None] < 0, -rows, rows)
            norms = np.abs(factors)
        offsets = (
            None if bias is None else _to_numpy(bias, "biases")[0].astype(np.float64).reshape(-1)
        )
        if offsets is not None and offsets.shape != norms.shape:
            raise PrototypeError(f"{name}: {len(norms)} rows but {offsets.size} biases.")
        if offsets is not None:
            _refuse_rows(~np.isfinite(offsets), name, "have a NaN or infinite bias")
        taken = None if usage is None else check_usage(usage, len(norms), name)
        rows = rows.view()  # the flag below must not freeze the caller's own array
        for array in (rows, lengths, norms, offsets, taken):
            if array is not None:
                array.setflags(write=False)
        return cls(
            rows=rows,
            lengths=lengths,
            norms=norms,
            bias=offsets,
            usage=taken,
            name=name,
            branch=branch,
            tensor_keys=tensor_keys,
            dtype=dtype,
            source=source,
        )

    @property
    def k(self) -> int:
        """Number of prototypes, K."""
        return int(self.rows.shape[0])

    @property
    def d(self) -> int:
        """Dimension of the bottleneck, D."""
        return int(self.rows.shape[1])

    def unit_rows(
        self, index: slice | npt.NDArray[np.intp] = slice(None)
    ) -> npt.NDArray[np.float64]:
        """Directions of some or all (8 bytes x k x d of memory): rows of unit norm, float64."""
        rows = self.rows[index].astype(np.float64)
        rows /= self.lengths[index, None]
        return rows

    def take(self, index: npt.NDArray[np.intp]) -> Prototypes:
        """Some of the prototypes, in the order of an index."""
        return replace(
            self,
            rows=self.rows[index],
            lengths=self.lengths[index],
            norms=self.norms[index],
            bias=None if self.bias is None else self.bias[index],
            usage=None if self.usage is None else self.usage[index],
        )

    def __repr__(self) -> str:
        branch = f", branch={self.branch!r}" if self.branch else ""
        return f"Prototypes({self.name!r}, k={self.k}, d={self.d}, dtype={self.dtype!r}{branch})"


def check_usage(usage: npt.ArrayLike, k: int, name: str) -> npt.NDArray[np.float64]:
    """The usage of k prototypes; a PrototypeError if it cannot be that."""
    values = np.array(usage, dtype=np.float64).reshape(-1)
    if values.size != k:
        raise PrototypeError(f"{name}: {k:,} rows but {values.size:,} values of usage.")
    _refuse_rows(~np.isfinite(values), name, "have a NaN or infinite usage")
    _refuse_rows(values < 0, name, "have a negative usage")
    return values


def check_epsilon(epsilon: float) -> float:
    """A cosine distance as a float; a ParameterError if it is not strictly between 0 and 1."""
    if not 0.0 < epsilon < 1.0:
        raise ParameterError(
            f"epsilon must be between 0 and 1 (a cosine distance), got {epsilon}.",
            hint=f"The literature uses {DEFAULT_EPSILON}.",
        )
    return float(epsilon)


def check_metric(metric: str, epsilon: float | None, radius: float | None) -> Metric:
    """A metric; a ParameterError if there is no such one or a threshold is not its own, or bad."""
    if metric == "cosine":
        if radius is not None:
            raise ParameterError(
                "radius is a Euclidean distance, and the metric is cosine.",
                hint="Give `epsilon=NUMBER`, or say `metric=euclidean`.",
            )
        if epsilon is not None:
            check_epsilon(epsilon)
        return "cosine"
    if metric != "euclidean":
        raise ParameterError(f"metric must be cosine or euclidean, got {metric!r}.")
    if epsilon is not None:
        raise ParameterError(
            "epsilon is a cosine distance, and the metric is euclidean.",
            hint="Give `radius=NUMBER`, or neither for the default radius.",
        )
    if radius is not None:
        check_radius(radius)
    return "euclidean"


def check_radius(radius: object) -> float:
    """A Euclidean distance as a float; a ParameterError if it is not from 1e-300 to 1e300."""
    if not isinstance(radius, int | float) or isinstance(radius, bool):
        raise ParameterError(f"radius must be a number, got {type(radius).__name__}.")
    if not 1e-300 <= radius <= 1e300:
        raise ParameterError(f"radius must be a distance from 1e-300 to 1e300, got {radius!s:.20}.")
    return float(radius)


def as_prototypes(
    given: Prototypes | npt.ArrayLike | torch.Tensor, *, zero_rows: bool = False
) -> Prototypes:
    """Prototypes as they are, or those of a weight matrix (k x d) in memory."""
    if not isinstance(given, Prototypes):
        return Prototypes.from_weight(given, zero_rows=zero_rows)
    if not zero_rows:
        _refuse_rows(given.lengths == 0, given.name, "are all zero and have no direction")
    return given


def _to_numpy(
    values: npt.ArrayLike | torch.Tensor, called: str = "prototypes"
) -> tuple[npt.NDArray[np.floating], str]:
    """Floating-point array of the stored values, in float32 or float64, and the stored type."""
    if isinstance(values, str | os.PathLike):
        raise ParameterError(
            f"a matrix of prototypes is needed, got the name {os.fspath(values)!r}.",
            hint="collapse_audit.audit(name) reads and audits a source.",
        )
    if hasattr(values, "detach"):  # a tensor, without importing torch to ask
        tensor = values.detach().cpu()
        name = str(tensor.dtype).removeprefix("torch.")
        if name in ("float64", "float32"):
            return tensor.contiguous().numpy(), name
        if tensor.is_floating_point():
            return tensor.float().contiguous().numpy(), name  # exact: both have fewer bits
        raise PrototypeError(f"{called} must be floating point, got {name}.")
    try:
        array = np.asarray(values)
    except ValueError as error:  # rows of several lengths
        raise PrototypeError(f"prototypes must be a matrix ({error}).") from error
    name = array.dtype.name
    if name in ("float64", "float32"):
        return np.ascontiguousarray(array), name
    if name in ("float16", "bfloat16"):
        return np.ascontiguousarray(array.astype(np.float32)), name
    what = type(values).__name__ if name == "object" else name
    raise PrototypeError(
        f"{called} must be floating point, got {what}.",
        hint="Pass the weight of the layer." if hasattr(values, "parameters") else "",
    )


def _within_range(stored: npt.NDArray[np.floating]) -> tuple[Array, npt.NDArray[np.int64]]:
    """Rows scaled by powers of two where their products would leave float64, and the exponents."""
    none = np.zeros(len(stored), dtype=np.int64)
    if stored.dtype == np.float32:
        return stored.astype(np.float32, copy=False), none
    exponents = np.frexp(np.abs(stored).max(axis=1))[1].astype(np.int64)
    if (np.abs(exponents) < _EXPONENT_LIMIT).all():
        return stored.astype(np.float64, copy=False), none
    return np.ldexp(stored, -exponents[:, None]).astype(np.float64), exponents


def _refuse_rows(bad: npt.NDArray[np.bool_], name: str, what: str) -> None:
    if bad.any():
        raise PrototypeError(
            f"{name}: {int(bad.sum())} of {bad.size} prototypes {what} "
            f"(first at index {int(bad.argmax())}).",
            hint="The head is damaged or its training diverged: use an earlier checkpoint.",
        )
