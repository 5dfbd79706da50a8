"""A gallery in words: for the terminal, and what its page says beside the images."""

from __future__ import annotations

import textwrap
from typing import Final

from collapse_audit.report import words
from collapse_audit.report.columns import text_columns
from collapse_audit.report.gallery_documents import GalleryClassDocument, GalleryDocument
from collapse_audit.report.table import WIDEST

LARGEST: Final = "Largest groups"
HEAVIEST: Final = "Classes with most mass"
_TITLES: Final = ("class", "r_m", "q_m", "samples", "label", "of them", "copies used",
                  "top samples")  # fmt: skip
_SHOWN: Final = 4  # samples of a class in the terminal, copies in a sentence


def gallery_to_table(gallery: GalleryDocument, *, width: int = WIDEST) -> str:
    """Write a gallery for a terminal, which shows no images: samples are told by their places."""
    lines = [
        words.shorten(f"Gallery of {words.source_name(gallery)}", width),
        words.shorten(words.head_name(gallery["name"], gallery["branch"]), width),
        *textwrap.wrap(counts(gallery), width),
    ]
    for title, classes in sections(gallery):
        rows = map(_row, classes)
        lines += ["", title, *text_columns(_TITLES, rows, "> > > > > > > <")]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def sections(gallery: GalleryDocument) -> list[tuple[str, list[GalleryClassDocument]]]:
    """Titles, and the classes below each; a head without copies has no largest groups."""
    by_number = {found["group"]: found for found in gallery["classes"]}
    kinds = ((LARGEST, gallery["largest"]), (HEAVIEST, gallery["heaviest"]))
    return [(title, [by_number[m] for m in numbers]) for title, numbers in kinds if numbers]


def counts(gallery: GalleryDocument) -> str:
    """How many classes there are and are used, and how pure they are."""
    text = (
        f"K = {words.count(gallery['k'])} prototypes are M = {words.count(gallery['m'])} unique "
        f"classes; {words.count(gallery['used'])} of these are the class of any of the "
        f"{words.count(gallery['n'])} samples."
    )
    if gallery["purity"] is not None and gallery["purity_by_chance"] is not None:
        text += (
            f" {words.percent(gallery['purity'])} of the samples have the most frequent label of "
            f"their class; with shuffled labels {words.percent(gallery['purity_by_chance'])}."
        )
    return text


def about(found: GalleryClassDocument) -> str:
    """Size, mass and samples of a class."""
    factor, count = found["redundancy_factor"], found["count"]
    text = f"r = {words.count(factor)}, q = {words.number(found['probability'])}, "
    text += words.plural(count, "sample")
    if found["label"] is not None:
        share = words.percent(found["label_count"] / count)
        text += f", {share} of label {found['label']}"
    return f"{text}."


def split(found: GalleryClassDocument) -> str:
    """How the copies of a class split it; empty if it has none."""
    if found["redundancy_factor"] == 1 or not found["count"]:
        return ""
    told = [
        f"prototype {copy['prototype']} takes {words.count(copy['count'])}"
        for copy in found["copies"][:_SHOWN]
        if copy["count"]
    ]
    more = "" if found["copies_used"] <= _SHOWN else ", others the rest"
    return (
        f"The samples are split over {words.count(found['copies_used'])} of the copies: "
        f"{', '.join(told)}{more}."
    )


def _row(found: GalleryClassDocument) -> tuple[str, ...]:
    labelled = found["label"] is not None
    return (
        words.count(found["group"]),
        words.count(found["redundancy_factor"]),
        words.number(found["probability"]),
        words.count(found["count"]),
        str(found["label"]) if labelled else "-",
        words.percent(found["label_count"] / found["count"]) if labelled else "-",
        words.count(found["copies_used"]),
        " ".join(str(one["sample"]) for one in found["samples"][:_SHOWN]),
    )
