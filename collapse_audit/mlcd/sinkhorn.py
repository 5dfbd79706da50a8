"""Sinkhorn-Knopp assignment (SwAV, DINOv2), in log space and in blocks of samples."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from collapse_audit.mlcd.softmax import Batch, Scorer

if TYPE_CHECKING:
    from torch import Tensor


def sinkhorn_offsets(
    scorer: Scorer, batches: list[Batch], *, extra: Tensor, iterations: int, tile: int
) -> Tensor:
    """Offsets (k, float64) with which a plain softmax gives the Sinkhorn-Knopp assignment."""
    # As in SwAV (Caron et al. 2020) and DINOv2: Q = exp(logits / temperature); repeat: every
    # prototype is scaled to total mass 1/K, then every sample to mass 1/N. Only the scaling of the
    # prototypes needs to be kept, v in
    #   v_k = -log K - log sum_i exp(l_ik + u_i),  u_i = -log N - log sum_k exp(l_ik + v_k),
    # because the last scaling of the samples is a softmax of l + v; it is added to ``extra``, which
    # is already part of the logits. Logits are computed again in each iteration, so memory is that
    # of the features and one block.
    n = sum(len(batch.rows) for batch in batches)
    columns = slice(0, scorer.k)
    rows = max(1, tile // scorer.k)
    v = torch.zeros_like(extra)
    for iteration in range(iterations):
        totals = torch.full_like(v, -torch.inf)
        for batch in batches:
            offset = scorer.offsets(extra, is_logits=batch.is_logits).to(scorer.dtype)
            for start in range(0, len(batch.rows), rows):
                block = Batch(batch.rows[start : start + rows], batch.is_logits)
                out = torch.empty(len(block.rows), scorer.k, dtype=scorer.dtype, device=v.device)
                logits = scorer.fill(block, columns, offset, out).double()
                if iteration:
                    u = -math.log(n) - torch.logsumexp(logits + v, dim=1)
                    logits += u[:, None]
                totals = torch.logaddexp(totals, torch.logsumexp(logits, dim=0))
        v = -math.log(scorer.k) - totals
    return extra + v
