"""`collapse-audit audit`: the main job."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from collapse_audit.cli.options import AuditOptions, OutputOptions, audit_options, output_options
from collapse_audit.cli.pipeline import audits_of, deliver
from collapse_audit.cli.remote_options import remote_options

if TYPE_CHECKING:
    from collapse_audit.remote import RemoteSettings


@click.command(
    name="audit",
    epilog="""\b
Examples:
  collapse-audit checkpoint0100.pth
  collapse-audit dino_vits16 --checkpoint-dir ~/checkpoints --format json
  collapse-audit hf://org/repo/dino_head.safetensors
  collapse-audit audit run/checkpoint.pth --branch student -o report.html

\b
The format follows the name of -o: .json, .csv, .md, .html; else it is a table.""",
)
@click.argument("source")
@audit_options
@output_options
@remote_options
def audit_command(
    source: str, audit: AuditOptions, output: OutputOptions, fetching: RemoteSettings
) -> None:
    """Count the unique prototypes of SOURCE and how often each is repeated.

    SOURCE is a checkpoint (.pth, .ckpt, .safetensors, .npy, .npz), an id of the manifest, or an
    address (https://, hf://ORG/REPO/FILE, s3://BUCKET/KEY, ...), of which only the head is
    fetched where that is possible. Every head is audited on its own. M is exact for the stored
    weights: it depends neither on the device nor on the number of threads.
    """
    deliver(lambda progress: audits_of(source, audit, progress, fetching), output, source=source)
