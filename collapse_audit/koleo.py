r"""The KoLeo losses: spread prototypes, or features, by their nearest neighbours.

.. math:: L(u) = -\frac{1}{K} \sum_k \log d_k, \qquad d_k = \min_{j \ne k} \lVert u_k - u_j \rVert

over unit rows u. It is the Kozachenko-Leonenko estimate of differential entropy up to constants
(Sablayrolles et al. 2019, "Spreading vectors for similarity search", eq. 4). On the rows of the
prototype layer it is KoLeo-proto; on the features of a batch it is the KoLeo-data of DINOv2.

Three things differ from the usual few lines, because each of them fails on a collapsed head:

* The K x K similarities are never held. Neighbours are found block by block without gradients, and
  gradients flow through K distances only.
* Below ``floor`` the logarithm goes on as its tangent, so that no gradient exceeds 1 / floor.
* Exact copies have no direction to part in: each is the other's neighbour and the two gradients
  cancel. Rows closer than ``floor`` are pushed along a fixed direction of their own as well.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from collapse_audit.errors import ParameterError

# Float32 inner products cannot rank neighbours closer than 3.5e-4; three times that is still 200
# times below the 0.22 at which two prototypes count as duplicates (cosine distance 0.025).
DEFAULT_FLOOR = 1e-3
# Rows compared at once: a tile of 16 MB, which changes memory and speed but not the neighbours.
_BLOCK_ROWS = 2048


def koleo_proto_loss(weight: Tensor, *, floor: float = DEFAULT_FLOOR) -> Tensor:
    r"""KoLeo-proto: how close the prototypes of a head stand to one another.

    Add it with weight 0.1 to the objective of any prototypical method. A uniform random head scores
    about -0.2 (K = 8192, D = 256); every exact copy adds up to ``1 - log(floor)`` over K.

    Args:
        weight: Prototype weights (k x d), before or after normalisation; for a weight-normed layer
            the ``v`` is enough, as only directions count. Distances are computed in float32 (in
            float64 for float64 weights) whatever the autocast state.
        floor: Distance below which the logarithm is continued as its tangent and ties are broken.

    Returns:
        The loss, a scalar in nats; differentiable once with respect to ``weight``.

    Raises:
        ParameterError: If the weight is not a floating-point matrix of at least two rows or is a
            shard of one (DTensor), or ``floor`` is not between 0 and 1.

    Example:
        >>> weight = torch.tensor([[0.0, 2.0], [0.0, -3.0]])
        >>> round(koleo_proto_loss(weight).item(), 4)  # antipodes: -log 2
        -0.6931
    """
    if problem := _problem(weight, floor, what="prototypes (k x d)", count="K"):
        raise ParameterError(problem)
    return _koleo(weight, floor)


def koleo_data_loss(x: Tensor, *, floor: float = DEFAULT_FLOOR) -> Tensor:
    r"""KoLeo-data: how close the features of a batch stand to one another.

    DINOv2 and DINOv3 apply it with weight 0.1 to the student's backbone features before the head,
    to every global crop on its own, and sum over the crops.

    Args:
        x: Features of one crop (n x d), or of several (views x n x d): features of different views
            are never compared, and the losses of the views are summed.
        floor: As in :func:`koleo_proto_loss`.

    Returns:
        The loss, a scalar in nats; differentiable once with respect to ``x``.

    Raises:
        ParameterError: If ``x`` has another shape or type, a view has fewer than two samples, or
            ``floor`` is not between 0 and 1.

    Example:
        >>> x = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        >>> round(koleo_data_loss(torch.stack([x, x])).item(), 4)  # twice -log sqrt 2
        -0.6931
    """
    views = x if getattr(x, "ndim", 2) == 3 else [x]
    if not len(views):
        raise ParameterError("KoLeo needs at least one view, got none.")
    for view in views:
        if problem := _problem(view, floor, what="features (n x d)", count="the batch size"):
            raise ParameterError(problem)
    return torch.stack([_koleo(view, floor) for view in views]).sum()


def nearest_neighbours(unit_rows: Tensor, *, block_rows: int = _BLOCK_ROWS) -> Tensor:
    """Index (k, int64) of the nearest other row of every unit row (k x d); without gradients."""
    # Every pair of blocks is multiplied once and serves both its rows and its columns. That pass
    # keeps only which block holds each row's best; a second, 1 / (number of blocks) as long, finds
    # the row within it. Of rows closer than the rounding of their inner product any may be named;
    # block_rows, compared at once, changes memory and not the result beyond that.
    with torch.no_grad():
        rows = unit_rows.detach()
        winner = _winning_blocks(rows, block_rows)
        neighbour = torch.empty(len(rows), dtype=torch.int64, device=rows.device)
        for block, start in enumerate(range(0, len(rows), block_rows)):
            candidates = rows[start : start + block_rows]
            for index in torch.split(torch.nonzero(winner == block).squeeze(1), block_rows):
                cosine = rows[index] @ candidates.T
                inside = torch.nonzero((index >= start) & (index < start + block_rows)).squeeze(1)
                # -inf, not -1 or 0: an antipode has cosine -1, and must win over the row itself.
                cosine[inside, index[inside] - start] = -torch.inf
                neighbour[index] = start + cosine.argmax(dim=1)
    return neighbour


def _winning_blocks(rows: Tensor, block_rows: int) -> Tensor:
    """Number of the block that holds the nearest other row of each row (k, int64)."""
    k = len(rows)
    best = torch.full((k,), -torch.inf, dtype=rows.dtype, device=rows.device)
    winner = torch.zeros(k, dtype=torch.int64, device=rows.device)
    tile = rows.new_empty(block_rows * block_rows)
    starts = range(0, k, block_rows)
    for i, first in enumerate(starts):
        left = slice(first, min(first + block_rows, k))
        for j, second in enumerate(starts[i:], start=i):
            right = slice(second, min(second + block_rows, k))
            shape = (left.stop - left.start, right.stop - right.start)
            cosine = tile[: shape[0] * shape[1]].view(shape)
            torch.mm(rows[left], rows[right].T, out=cosine)
            if i == j:
                cosine.fill_diagonal_(-torch.inf)
            else:
                _keep_best(best, winner, right, cosine.amax(dim=0), i)
            _keep_best(best, winner, left, cosine.amax(dim=1), j)
    return winner


def _keep_best(best: Tensor, winner: Tensor, span: slice, cosine: Tensor, block: int) -> None:
    """Let a block win the rows of a span for which it holds something nearer than before."""
    nearer = cosine > best[span]
    best[span] = torch.where(nearer, cosine, best[span])
    winner[span] = winner[span].masked_fill(nearer, block)


class _MeanLogDistance(torch.autograd.Function):
    """-(1/K) sum_k log ||u_k - u_n(k)||, its gradient built chunk by chunk beside the value."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, neighbour: Tensor, floor: float) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=rows.device)
        gradient = torch.zeros_like(rows)
        for index in torch.split(torch.arange(len(rows), device=rows.device), _BLOCK_ROWS):
            other = neighbour[index]
            difference = rows[index] - rows[other]
            distance = difference.norm(dim=1)
            bounded = distance.clamp_min(floor)
            # log d above the floor; below it the tangent at the floor: log f + d/f - 1
            total -= (bounded.log() + distance / bounded - 1).sum(dtype=torch.float64)
            close = torch.nonzero(distance < floor).squeeze(1)
            if len(close):
                code = _tie_breaker(index[close], rows) - _tie_breaker(other[close], rows)
                difference[close] += 0.1 * floor * code
                distance[close] = difference[close].norm(dim=1)
            slope = difference / (-len(rows) * distance * bounded)[:, None]
            gradient[index] += slope
            gradient.index_add_(0, other, slope, alpha=-1)
        ctx.save_for_backward(gradient)
        return (total / len(rows)).to(rows.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * scale, None, None


def _tie_breaker(index: Tensor, rows: Tensor) -> Tensor:
    """A direction of about unit length for each row number, the same in every call."""
    # Cosines of incommensurate multiples of the row number: as good as random, without a K x D
    # table and without touching any generator, so that training stays reproducible.
    d = rows.shape[1]
    frequency = torch.arange(1, d + 1, dtype=torch.float64, device=rows.device).sqrt() * torch.pi
    phase = torch.outer(index.to(torch.float64) + 1, frequency)
    return phase.cos().mul(math.sqrt(2 / d)).to(rows.dtype)


def _koleo(rows: Tensor, floor: float) -> Tensor:
    with torch.autocast(device_type=rows.device.type, enabled=False):
        exact = rows if rows.dtype == torch.float64 else rows.float()
        unit_rows = functional.normalize(exact, dim=1)
        loss: Tensor = _MeanLogDistance.apply(unit_rows, nearest_neighbours(unit_rows), floor)
    return loss


def _problem(rows: object, floor: float, *, what: str, count: str) -> str:
    """What is wrong with the arguments and what to do; empty if nothing is."""
    if not isinstance(rows, Tensor):
        return f"KoLeo needs a torch tensor of {what}, got {type(rows).__name__}."
    if hasattr(rows, "full_tensor"):
        return f"KoLeo needs all {what}, got a shard. Take the loss in a forward hook of the layer."
    if rows.ndim != 2 or not rows.shape[1] or not rows.is_floating_point():
        shape = tuple(rows.shape)
        return f"KoLeo needs a floating-point matrix of {what}, got {shape} {rows.dtype}."
    if len(rows) < 2:
        return f"KoLeo needs at least two rows to compare, got {len(rows)}. Raise {count} to 2."
    if not 0.0 < floor < 1.0:
        return f"floor must be a distance between 0 and 1, got {floor}; default {DEFAULT_FLOOR}."
    return ""
