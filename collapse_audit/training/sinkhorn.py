"""Sinkhorn-Knopp: targets balanced over the prototypes."""

from __future__ import annotations

from torch import Tensor


def sinkhorn_knopp(logits: Tensor, iterations: int) -> Tensor:
    """Scale exp(logits) (n x k) so that prototypes share the samples evenly; each row sums to 1."""
    # In log space, so that no temperature overflows (``exp`` does, beyond logits of 88). SwAV and
    # DINOv2 take 3 iterations; the marginals over prototypes are met in the limit.
    log_plan = logits
    for _ in range(iterations):
        log_plan = log_plan - log_plan.logsumexp(dim=0, keepdim=True)
        log_plan = log_plan - log_plan.logsumexp(dim=1, keepdim=True)
    return log_plan.exp()
