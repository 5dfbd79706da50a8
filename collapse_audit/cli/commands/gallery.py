"""`collapse-audit gallery`: what the unique classes look like."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from collapse_audit.cli.console import check_output, emit, is_quiet
from collapse_audit.cli.formats import table_width
from collapse_audit.cli.measuring import measure_head, resolve
from collapse_audit.cli.mlcd_options import MLCDOptions
from collapse_audit.cli.options import (
    AuditOptions,
    OutputOptions,
    format_options,
    option_of,
    options_of,
    source_argument,
)
from collapse_audit.cli.progress import progress_bars
from collapse_audit.cli.remote_options import remote_options
from collapse_audit.gallery import MOST, Gallery
from collapse_audit.report.gallery_text import gallery_to_table

if TYPE_CHECKING:
    from collapse_audit.remote.settings import RemoteSettings

_FORMATS: Final[dict[str, Callable[[Gallery], str]]] = {
    "table": str,
    "json": Gallery.to_json,
    "html": Gallery.to_html,
}


@click.command(
    name="gallery",
    epilog="""\b
Examples:
  collapse-audit gallery demo --data digits -o gallery.html
  collapse-audit gallery checkpoint.pth --data imagenet/val --limit 10000 -o gallery.html
  collapse-audit gallery demo --data digits --assignments classes.csv""",
)
@source_argument
@click.option(
    "--classes",
    type=click.IntRange(1, MOST),
    default=8,
    show_default=True,
    metavar="N",
    help="The N largest groups, and the N classes with most mass.",
)
@click.option(
    "--top",
    type=click.IntRange(1, MOST),
    default=12,
    show_default=True,
    metavar="N",
    help="Images of each class, those with the largest probability.",
)
@options_of(MLCDOptions, "mlcd")
@options_of(
    AuditOptions,
    "audit",
    fixed={"sweep": False, "nearest": False},
    head={"help": "Which head; the image-level one by default."},
)
@format_options(_FORMATS, "Write to FILE instead of stdout; .html has the images.")
@option_of(OutputOptions, "progress")
@remote_options
def gallery_command(
    source: str,
    *,
    classes: int,
    top: int,
    mlcd: MLCDOptions,
    audit: AuditOptions,
    form: str,
    output: Path | None,
    progress: bool,
    fetching: RemoteSettings,
) -> None:
    """Show the images of the largest groups and of the classes with most mass.

    Of each unique class: its redundancy factor r_m, its mass q_m, the images with the largest
    q_m(x), and how its copies split them. The page holds small copies of the images, without names
    or metadata, and is below 2 MB. DATA and the options are those of `mlcd`.
    """
    from collapse_audit.network import open_samples

    if output is not None:
        check_output(output, [source])
    with progress_bars(wanted=progress and not is_quiet()) as told:
        resolved = resolve(source, mlcd, audit, fetching)
        audited, samples = measure_head(resolved, mlcd, audit, told)
    if mlcd.features is not None:
        samples = open_samples(mlcd.data)
    found = audited.gallery(samples if form == "html" else None, classes=classes, top=top)
    if form == "table":
        width = table_width(to_terminal=output is None)
        emit(gallery_to_table(found.to_dict(), width=width), output)
    else:
        emit(_FORMATS[form](found), output)
