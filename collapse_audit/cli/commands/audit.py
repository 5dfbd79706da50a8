"""`collapse-audit audit`: the main job."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import click

from collapse_audit.cli.options import (
    AuditOptions,
    OutputOptions,
    options_of,
    output_options,
    several_sources,
)
from collapse_audit.cli.pipeline import audits_of, deliver
from collapse_audit.cli.remote_options import remote_options

if TYPE_CHECKING:
    from collapse_audit.remote.settings import RemoteSettings


@click.command(
    name="audit",
    epilog="""\b
Examples:
  collapse-audit checkpoint0100.pth
  collapse-audit dino_vits16 --checkpoint-dir ~/checkpoints --format json
  collapse-audit hf://org/repo/dino_head.safetensors
  collapse-audit audit run/checkpoint.pth --branch student -o report.html
  collapse-audit audit run/*.pth --format csv
  collapse-audit audit head.pth --groups groups.csv
  ssh host cat run/checkpoint.pth | collapse-audit -

\b
The format follows the name of -o: .json, .csv, .md, .html; else it is a table.""",
)
@several_sources
@options_of(AuditOptions, "audit", fixed={"head": None})
@output_options
@remote_options
def audit_command(
    wanted: list[tuple[str, str | None]],
    audit: AuditOptions,
    output: OutputOptions,
    fetching: RemoteSettings,
) -> None:
    """Count the unique prototypes of each SOURCE and how often each is repeated.

    SOURCE is a checkpoint (.pth, .ckpt, .safetensors, .npy, .npz), an id of the manifest, an
    address (https://, hf://ORG/REPO/FILE, s3://BUCKET/KEY, ...), demo, or - for a file on stdin.
    From an address only the head is fetched where possible. Every head is audited on its own. M is
    exact for the stored weights: it depends neither on the device nor on the number of threads.

    For several sources, CSV has one row for each head, and JSON is a list. A source that cannot be
    audited is reported in its place, and the exit code is 2.
    """
    work = [
        (source, partial(audits_of, source, replace(audit, head=head), fetching=fetching))
        for source, head in wanted
    ]
    deliver(work, output)
