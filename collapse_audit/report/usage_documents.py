"""Types of what a report says of codebooks: their usage, and several of them together."""

from __future__ import annotations

from typing import TypedDict


class UsageDocument(TypedDict):
    """How often training took each code, over codes (k) and unique ones (m)."""

    dead_below: float  # share of the mean usage
    k: dict[str, float]
    m: dict[str, float]


class SummaryUsage(TypedDict):
    """The stored usage of several codebooks together."""

    heads: int
    perplexity_min: float
    perplexity_median: float
    dead: int
    bits: float  # sum of log2 of the perplexities
    bits_of_k: float


class SummaryDocument(TypedDict):
    """Several heads together; each was audited on its own."""

    heads: int
    k: int
    m: int
    unique_fraction: float
    unique_fraction_min: float
    unique_fraction_median: float
    least_unique: str
    stored_usage: SummaryUsage | None
