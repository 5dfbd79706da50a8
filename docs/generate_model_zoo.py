"""Write docs/models.md from the manifest; with ``--check``, fail if it is stale."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from generate_cli_reference import keep

from collapse_audit.manifest import CheckpointEntry, load_manifest

PAGE = Path(__file__).with_name("models.md")

INTRODUCTION = """\
# Model zoo

<!-- Written by docs/generate_model_zoo.py (make reference) from checkpoints_manifest.yaml. -->

The checkpoints that collapse-audit knows by an id. `collapse-audit dino_vits16`, for example,
fetches the head of that checkpoint and audits it. `collapse-audit list` prints this table, and
`collapse-audit list --json` prints every field.

- **K** and **D**: the number of prototypes and their dimension. A dash means unknown.
- **Published M**: unique prototypes as papers count them, at their own epsilon and by their own
  rule; a star marks a number that was quoted by others. None was measured for this release.
- **Evidence** that the file holds the head: A, somebody opened it and said so; B, its authors say
  so; C, inferred; N, no file is public.
- **Head**: the file to audit; *page* where the download takes a step by hand; *none* where the
  head is not public.
"""
HEADINGS = ("id", "backbone", "K", "D", "published M", "evidence", "licence", "head")


def cells(entry: CheckpointEntry) -> Iterator[str]:
    """One row of the table."""
    yield f"`{entry.id}`"
    yield entry.backbone or "-"
    yield "-" if entry.k is None else f"{entry.k:,}"
    yield "-" if entry.d is None else f"{entry.d:,}"
    published = (f"{p.unique:,}{'*' if p.second_hand else ''}" for p in entry.published)
    yield ", ".join(published) or "-"
    yield entry.evidence
    yield entry.licence or "-"
    link = "page" if entry.fetch == "manual" else "file"
    yield f"[{link}]({entry.url})" if entry.url else "none"


def render() -> str:
    """The page: a table for each family, then the sources of the published counts."""
    entries = list(load_manifest().filter())
    parts = [INTRODUCTION]
    for family in dict.fromkeys(entry.family for entry in entries):
        rows = (entry for entry in entries if entry.family == family)
        table = [HEADINGS, ["---"] * 2 + ["--:"] * 3 + ["---"] * 3, *map(cells, rows)]
        lines = "\n".join(f"| {' | '.join(row)} |" for row in table)
        parts.append(f"## {family}\n\n{lines}\n")
    counts = "\n".join(
        f"- `{entry.id}`: {p.unique:,}, {p.source}" for entry in entries for p in entry.published
    )
    parts.append(f"## Sources of the published counts\n\n{counts}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    sys.exit(keep(PAGE, render(), sys.argv[1:]))
