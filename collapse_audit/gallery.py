"""Gallery: an MLCD with groups -> the unique classes that are most copied or have most mass."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from collapse_audit.errors import ParameterError
from collapse_audit.report.documents import SCHEMA_VERSION, TOOL, Parameters, SourceDocument
from collapse_audit.report.gallery_documents import (
    GALLERY_SCHEMA,
    GalleryClassDocument,
    GalleryDocument,
)
from collapse_audit.report.gallery_text import gallery_to_table
from collapse_audit.report.html import gallery_to_html, gallery_to_html_fragment
from collapse_audit.report.json_text import to_json

if TYPE_CHECKING:
    from collapse_audit.mlcd import MLCD

Counts: TypeAlias = npt.NDArray[np.int64]
Vector: TypeAlias = npt.NDArray[np.floating]

MOST: Final = 24
"""Classes of each kind, images of each class, and copies that are told: at the most."""

_NO_GROUPS = "a gallery shows unique classes, and this class distribution has no groups."
_HOW = "Pass groups=audit.groups to measure_mlcd."


@dataclass(frozen=True, slots=True, eq=False)
class GalleryClass:
    """One unique class: its copies, and the samples that are assigned to it.

    A sample is assigned to the class with the largest q_m(x), the sum of p(k|x) over its copies.

    Attributes:
        group: Its number, 0 to M - 1.
        redundancy_factor: Prototypes that are copies of one another in it, r_m.
        probability: Its mass q_m, the mean of q_m(x) over all samples.
        count: Samples that are assigned to it.
        label: Label that most of them have, the smallest of equal ones; ``None`` without any.
        label_count: How many have it.
        samples: Places in the data source of those with the largest q_m(x), falling (t).
        sample_probabilities: Their q_m(x) (t).
        sample_copies: The most likely prototype of the class for each (t).
        sample_labels: Their labels (t), if there are any.
        copies: Prototypes of the class that take the most of its samples, 24 at the most (c): a
            sample is taken by the most likely prototype of its class, of exact copies by the first.
        copy_counts: How many samples each of them takes (c), falling.
        copy_probabilities: Their p_k (c).
        copies_used: Copies, of all r_m, that take any.
    """

    group: int
    redundancy_factor: int
    probability: float
    count: int
    label: int | None
    label_count: int
    samples: Counts
    sample_probabilities: Vector
    sample_copies: Counts
    sample_labels: Counts | None
    copies: Counts
    copy_counts: Counts
    copy_probabilities: Vector
    copies_used: int

    def to_dict(self) -> GalleryClassDocument:
        """The class in plain values."""
        labels = [None] * len(self.samples) if self.sample_labels is None else self.sample_labels
        return {
            "group": self.group,
            "redundancy_factor": self.redundancy_factor,
            "probability": self.probability,
            "count": self.count,
            "label": self.label,
            "label_count": self.label_count,
            "samples": [
                {
                    "sample": int(sample),
                    "probability": float(probability),
                    "copy": int(copy),
                    "label": None if label is None else int(label),
                }
                for sample, probability, copy, label in zip(
                    self.samples, self.sample_probabilities, self.sample_copies, labels,
                    strict=True,
                )
            ],
            "copies": [
                {"prototype": int(k), "probability": float(probability), "count": int(count)}
                for k, probability, count in zip(
                    self.copies, self.copy_probabilities, self.copy_counts, strict=True
                )
            ],
            "copies_used": self.copies_used,
        }  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Gallery:
    """What unique classes look like; a notebook shows it with its images.

    Attributes:
        source: What was audited.
        name: Of the head.
        branch: Which network's head it is, where there are two.
        parameters: How the groups were made.
        k: Number of prototypes.
        m: Number of unique classes.
        n: Number of samples.
        used: Unique classes that any sample is assigned to.
        largest: Group numbers by falling r_m, of those with copies.
        heaviest: Group numbers by falling q_m.
        classes: All of these, by group number.
        purity: Share of samples that have the most frequent label of their unique class; ``None``
            without labels. More classes give a larger share by chance alone.
        purity_by_chance: The same with the labels shuffled (once, seed 0).
        thumbnails: Small images as ``data:`` URIs, by place in the data source.
    """

    source: SourceDocument
    name: str
    branch: str | None
    parameters: Parameters
    k: int
    m: int
    n: int
    used: int
    largest: tuple[int, ...]
    heaviest: tuple[int, ...]
    classes: Mapping[int, GalleryClass]
    purity: float | None
    purity_by_chance: float | None
    thumbnails: Mapping[int, str] = field(default_factory=dict)

    def to_dict(self) -> GalleryDocument:
        """The gallery without its images, as ``--format json`` prints it."""
        return {
            "schema": GALLERY_SCHEMA,
            "schema_version": SCHEMA_VERSION,
            "tool": TOOL.copy(),
            "source": self.source,
            "parameters": self.parameters,
            "name": self.name,
            "branch": self.branch,
            "k": self.k,
            "m": self.m,
            "n": self.n,
            "used": self.used,
            "purity": self.purity,
            "purity_by_chance": self.purity_by_chance,
            "largest": list(self.largest),
            "heaviest": list(self.heaviest),
            "classes": [found.to_dict() for found in self.classes.values()],
        }

    def to_json(self) -> str:
        """The same as JSON."""
        return to_json(self.to_dict())

    def to_html(self) -> str:
        """One self-contained HTML page, below 2 MB, with the images in it."""
        return gallery_to_html(self.to_dict(), self.thumbnails)

    def _repr_html_(self) -> str:
        return gallery_to_html_fragment(self.to_dict(), self.thumbnails)

    def __repr__(self) -> str:
        return f"Gallery(m={self.m}, n={self.n}, used={self.used}, classes={len(self.classes)})"

    def __str__(self) -> str:
        return gallery_to_table(self.to_dict())


def chosen_classes(mlcd: MLCD, number: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The largest groups that are no single prototype, and those with most mass."""
    factors, masses = mlcd.redundancy_factors, mlcd.unique_probabilities
    if factors is None or masses is None:
        raise ParameterError(_NO_GROUPS, hint=_HOW)
    largest = [m for m in np.lexsort((-masses, -factors))[:number] if factors[m] > 1]
    heaviest = np.argsort(-masses, kind="stable")[:number]
    return tuple(map(int, largest)), tuple(map(int, heaviest))


def gallery_class(mlcd: MLCD, group: int, top: int) -> GalleryClass:
    """One class of an MLCD with groups, with its ``top`` samples."""
    groups, won, nearest = mlcd.groups, mlcd.unique_winners, mlcd.copy_winners
    highest = mlcd.unique_winner_probabilities
    if groups is None or won is None or nearest is None or highest is None:
        raise ParameterError(_NO_GROUPS, hint=_HOW)
    members, assigned = np.flatnonzero(groups == group), np.flatnonzero(won == group)
    best = assigned[np.argsort(-highest[assigned], kind="stable")[:top]]
    taken, masses = np.bincount(nearest[assigned], minlength=len(groups)), mlcd.probabilities
    copies = members[np.lexsort((-masses[members], -taken[members]))[:MOST]]
    label, label_count = None, 0
    if mlcd.labels is not None and assigned.size:
        labels, counts = np.unique(mlcd.labels[assigned], return_counts=True)
        label, label_count = int(labels[counts.argmax()]), int(counts.max())
    return GalleryClass(
        group=group,
        redundancy_factor=len(members),
        probability=min(float(masses[members].sum()), 1.0),
        count=len(assigned),
        label=label,
        label_count=label_count,
        samples=best if mlcd.index is None else mlcd.index[best],
        sample_probabilities=highest[best],
        sample_copies=nearest[best],
        sample_labels=None if mlcd.labels is None else mlcd.labels[best],
        copies=copies,
        copy_counts=taken[copies],
        copy_probabilities=masses[copies],
        copies_used=int((taken > 0).sum()),
    )


def purity(classes: Counts, labels: Counts) -> float:
    """Share of samples that have the most frequent label of their class."""
    pairs, counts = np.unique(np.stack([classes, labels]), axis=1, return_counts=True)
    most = np.zeros(int(classes.max()) + 1, dtype=np.int64)
    np.maximum.at(most, pairs[0], counts)
    return float(most.sum() / len(classes))


def make_gallery(
    mlcd: MLCD,
    *,
    source: SourceDocument,
    name: str,
    branch: str | None,
    parameters: Parameters,
    classes: int,
    top: int,
) -> Gallery:
    """The gallery of a head, without images."""
    if not (1 <= classes <= MOST and 1 <= top <= MOST):
        raise ParameterError(f"classes and top must be from 1 to {MOST}, got {classes} and {top}.")
    largest, heaviest = chosen_classes(mlcd, classes)
    shown = {m: gallery_class(mlcd, m, top) for m in sorted({*largest, *heaviest})}
    shares: tuple[float | None, float | None] = (None, None)
    if mlcd.labels is not None and mlcd.unique_winners is not None:
        shuffled = np.random.default_rng(0).permutation(mlcd.labels)
        shares = (purity(mlcd.unique_winners, mlcd.labels), purity(mlcd.unique_winners, shuffled))
    return Gallery(
        source=source,
        name=name,
        branch=branch,
        parameters=parameters,
        k=len(mlcd.probabilities),
        m=0 if mlcd.redundancy_factors is None else len(mlcd.redundancy_factors),
        n=mlcd.n,
        used=mlcd.usage("m").used,
        largest=largest,
        heaviest=heaviest,
        classes=shown,
        purity=shares[0],
        purity_by_chance=shares[1],
    )
