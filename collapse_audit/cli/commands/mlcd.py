"""`collapse-audit mlcd`: what a head really predicts."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from collapse_audit.cli.measuring import counter, measure_head, opened, resolve
from collapse_audit.cli.mlcd_options import MLCDOptions
from collapse_audit.cli.options import (
    AuditOptions,
    OutputOptions,
    options_of,
    output_options,
    source_argument,
)
from collapse_audit.cli.pipeline import deliver
from collapse_audit.cli.remote_options import remote_options
from collapse_audit.errors import ParameterError

if TYPE_CHECKING:
    from collapse_audit.head_audit import CollapseAudit
    from collapse_audit.remote.settings import RemoteSettings
    from collapse_audit.report.documents import FeaturesReport
    from collapse_audit.similarity import Progress
    from collapse_audit.sources import ResolvedSource


@click.command(
    name="mlcd",
    epilog="""\b
Examples:
  collapse-audit mlcd demo --data digits
  collapse-audit mlcd checkpoint.pth --data imagenet/val --limit 10000 --workers 8
  collapse-audit mlcd demo --data digits --assignments classes.csv
  collapse-audit mlcd checkpoint.pth --data images.npz --resize none --backbone-arg num_heads=4

\b
DATA is a folder of images, digits, fashion-mnist:FOLDER, a torchvision data set as NAME:FOLDER,
or a .npz or .safetensors file with images, features or logits (and labels, if there are any).""",
)
@source_argument
@options_of(MLCDOptions, "mlcd")
@options_of(AuditOptions, "audit", head={"help": "Which head; the image-level one by default."})
@output_options
@remote_options
def mlcd_command(
    source: str,
    mlcd: MLCDOptions,
    audit: AuditOptions,
    output: OutputOptions,
    fetching: RemoteSettings,
) -> None:
    """Measure the latent classes of SOURCE over its prototypes and over the unique ones.

    Runs samples through backbone and head. A head with copied prototypes looks nearly uniform
    over all K of them and far from uniform over the M unique ones; the mutual information is the
    number that copies cannot inflate. SOURCE is what `audit` takes; from an address, the head is
    fetched and, for images, the backbone.

    It also measures RankMe, participation ratio and uniformity of the features. If SOURCE has no
    prototypes, as with SimDINO and LeJEPA, that is all it measures.
    """
    deliver(
        [(source, partial(_measure, source, mlcd, audit, fetching, groups=output.groups))], output
    )


def _measure(
    source: str,
    options: MLCDOptions,
    audit: AuditOptions,
    fetching: RemoteSettings,
    progress: Progress,
    *,
    groups: Path | None,
) -> list[CollapseAudit] | FeaturesReport:
    """The audit of one head, with its MLCD; of a source without prototypes its features."""
    resolved = resolve(source, options, audit, fetching)
    if audit.head is None and not resolved.heads:
        unused = {
            "temperature": options.temperature,
            "centre": options.centre,
            "groups": groups,
            "assignments": options.assignments,
        }
        for name, given in unused.items():
            if given is not None:
                raise ParameterError(f"--{name}: {resolved.spec} has no prototypes to use it on.")
        return _measure_features(resolved, options, audit, progress)
    return [measure_head(resolved, options, audit, progress)[0]]


def _measure_features(
    resolved: ResolvedSource, options: MLCDOptions, audit: AuditOptions, progress: Progress
) -> FeaturesReport:
    from collapse_audit.checkpoints.obstacles import features_alone
    from collapse_audit.network import load_backbone, measure_features
    from collapse_audit.report_builder import features_report

    model, samples, reading = opened(load_backbone, resolved, options, audit, progress)
    if samples.logits is not None:
        resolved.select(branch=audit.branch, head=None)  # says that there are none
    told = counter("samples", progress, min(options.limit or len(samples), len(samples)))
    spread = measure_features(samples, model, dtype=options.dtype, **reading, progress=told)
    return features_report(
        resolved.document(), features_alone(resolved.family), {"backbone": spread}
    )
