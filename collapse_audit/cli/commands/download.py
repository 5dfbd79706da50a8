"""`collapse-audit download`: put heads or whole files into the cache."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from collapse_audit.cli.options import AuditOptions, option_of, several_sources
from collapse_audit.cli.remote_options import remote_options, reporter

if TYPE_CHECKING:
    from collapse_audit.prototypes import Branch
    from collapse_audit.remote.settings import RemoteSettings


@click.command(
    name="download",
    epilog="""\b
Examples:
  collapse-audit download dino_vits16
  collapse-audit download hf://org/repo/dino_head.safetensors
  collapse-audit download dino_vits16 --full --cache-dir ~/checkpoints""",
)
@several_sources
@click.option("--full", is_flag=True, help="Fetch the whole file, for example for its backbone.")
@option_of(AuditOptions, "branch")
@remote_options
def download_command(
    wanted: list[tuple[str, str | None]], full: bool, branch: Branch, fetching: RemoteSettings
) -> None:
    """Fetch the heads of each SOURCE into the cache, for audits without a network.

    SOURCE is an id that `collapse-audit list` shows, or an address: https://, hf://ORG/REPO/FILE,
    s3://BUCKET/KEY, or any other scheme of fsspec. Only the head is fetched if the file can be read
    in parts. An interrupted download continues where it stopped. Prints one line for each head:
    source, head, K and D; with --full, the path of the file.
    """
    from collapse_audit.remote.whole_files import fetch_file, file_of_other_tools
    from collapse_audit.sources import find_remote, resolve_source

    told = reporter()
    remotes = [find_remote(source) for source, _ in wanted]
    for (source, head), remote in zip(wanted, remotes, strict=True):
        if full:
            path = file_of_other_tools(remote, told) or fetch_file(remote, fetching, told)
            click.echo(str(path))
            continue
        resolved = resolve_source(source, settings=fetching, reporter=told)
        for prototypes in resolved.load(resolved.select(branch=branch, head=head)):
            click.echo(f"{remote.name}\t{prototypes.name}\t{prototypes.k}\t{prototypes.d}")
