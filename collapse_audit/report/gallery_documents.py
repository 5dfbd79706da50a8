"""The document that ``gallery --format json`` prints, as types."""

from __future__ import annotations

from typing import Final, TypedDict

from collapse_audit.report.documents import Document, Parameters, SourceDocument

GALLERY_SCHEMA: Final = "collapse-audit/gallery"


class GallerySample(TypedDict):
    """A sample of a class: place in the data source, q_m(x), most likely prototype of the class."""

    sample: int
    probability: float
    copy: int
    label: int | None


class GalleryCopy(TypedDict):
    """A prototype of a class: its p_k, and the samples that it takes of the class."""

    prototype: int
    probability: float
    count: int


class GalleryClassDocument(TypedDict):
    """A unique class, its samples with the largest q_m(x), and its copies with the most samples."""

    group: int
    redundancy_factor: int
    probability: float
    count: int
    label: int | None
    label_count: int
    samples: list[GallerySample]
    copies: list[GalleryCopy]
    copies_used: int


class GalleryDocument(Document):
    """What the unique classes of one head look like."""

    source: SourceDocument
    parameters: Parameters
    name: str
    branch: str | None
    k: int
    m: int
    n: int
    used: int
    purity: float | None
    purity_by_chance: float | None
    largest: list[int]
    heaviest: list[int]
    classes: list[GalleryClassDocument]
