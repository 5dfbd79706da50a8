"""`collapse-audit list`: the checkpoints of the manifest."""

import json
from dataclasses import asdict

import click

from collapse_audit.manifest import CheckpointEntry, load_manifest
from collapse_audit.report.columns import text_columns

_HEADINGS = ("id", "family", "backbone", "K", "D", "published M", "evidence")


@click.command(name="list")
@click.option("--family", metavar="NAME", help="Only this family, such as dino or swav.")
@click.option("--with-head", is_flag=True, help="Only checkpoints whose head file is public.")
@click.option("--json", "as_json", is_flag=True, help="Every field of every row, as JSON.")
def list_command(family: str | None, with_head: bool, as_json: bool) -> None:
    """List the public checkpoints that hold prototypes.

    Each id can be audited: `collapse-audit ID`. K and D are the number of prototypes of a head and
    their dimension; - means unknown. Published M is what papers count; * marks a number quoted by
    others. Evidence that the file holds the head: A somebody opened it, B its authors say so,
    C inferred, N no file is public.
    """
    entries = load_manifest().filter(family=family, with_head=with_head)
    if as_json:
        rows = [asdict(entry) | {"file_name": entry.file_name} for entry in entries]
        click.echo(json.dumps(rows, indent=2))
        return
    # 100 characters hold every row of the manifest
    for line in text_columns(_HEADINGS, map(_cells, entries), "< < < > > > <"):
        click.echo(line)


def _cells(entry: CheckpointEntry) -> tuple[str, ...]:
    published = ", ".join(f"{p.unique}{'*' if p.second_hand else ''}" for p in entry.published)
    cells = (entry.backbone, entry.k, entry.d, published or None)
    return (
        entry.id,
        entry.family,
        *("-" if cell is None else str(cell) for cell in cells),
        entry.evidence,
    )
