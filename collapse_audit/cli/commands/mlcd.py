"""`collapse-audit mlcd`: what a head really predicts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from collapse_audit.cli.console import check_output
from collapse_audit.cli.mlcd_options import MLCDOptions
from collapse_audit.cli.options import (
    AuditOptions,
    OutputOptions,
    options_of,
    output_options,
    source_argument,
)
from collapse_audit.cli.pipeline import deliver
from collapse_audit.cli.remote_options import remote_options, reporter
from collapse_audit.errors import ParameterError

if TYPE_CHECKING:
    from collapse_audit.head_audit import CollapseAudit
    from collapse_audit.network.datasets import Samples
    from collapse_audit.network.image_model import ImageModel
    from collapse_audit.network.preprocessing import Preprocessing
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
    from collapse_audit.sources import resolve_source

    if options.features is not None and not options.features.exists():
        check_output(options.features, [source], option="--features")
    resolved = resolve_source(
        source, checkpoint_dir=audit.checkpoint_dir, settings=fetching, reporter=reporter()
    )
    if audit.head is None and not resolved.heads:
        unused = (options.temperature, options.centre, groups)
        for name, given in zip(("temperature", "centre", "groups"), unused, strict=True):
            if given is not None:
                raise ParameterError(f"--{name}: {resolved.spec} has no prototypes to use it on.")
        return _measure_features(resolved, options, audit, progress)
    return _measure_head(resolved, options, audit, progress)


def _measure_head(
    resolved: ResolvedSource, options: MLCDOptions, audit: AuditOptions, progress: Progress
) -> list[CollapseAudit]:
    from collapse_audit.auditing import audit_heads
    from collapse_audit.network import load_head_model, measure_mlcd

    load = partial(load_head_model, head=audit.head)
    model, samples, reading = _opened(load, resolved, options, audit, progress)
    if options.temperature is None:
        _ = model.temperature  # refused before the audit, not after it
    (audited,) = audit_heads(
        resolved,
        (model.prototypes,),
        epsilon=audit.epsilon,
        sweep=audit.sweep,
        nearest=audit.nearest,
        device=audit.device,
        metric=audit.metric,
        radius=audit.radius,
        progress=progress,
    )
    mlcd = measure_mlcd(
        model,
        samples,
        groups=audited.groups,
        temperature=options.temperature,
        centre=options.centre,
        prior=options.prior,
        assignment=options.assignment,
        dtype=options.dtype,
        **reading,
        progress=_counter("samples", progress, min(options.limit or len(samples), len(samples))),
    )
    return [audited.with_mlcd(mlcd)]


def _measure_features(
    resolved: ResolvedSource, options: MLCDOptions, audit: AuditOptions, progress: Progress
) -> FeaturesReport:
    from collapse_audit.checkpoints.obstacles import features_alone
    from collapse_audit.network import load_backbone, measure_features
    from collapse_audit.report_builder import features_report

    model, samples, reading = _opened(load_backbone, resolved, options, audit, progress)
    if samples.logits is not None:
        resolved.select(branch=audit.branch, head=None)  # says that there are none
    told = _counter("samples", progress, min(options.limit or len(samples), len(samples)))
    spread = measure_features(samples, model, dtype=options.dtype, **reading, progress=told)
    return features_report(
        resolved.document(), features_alone(resolved.family), {"backbone": spread}
    )


def _opened(
    load: Callable[..., Any],
    resolved: ResolvedSource,
    options: MLCDOptions,
    audit: AuditOptions,
    progress: Progress,
) -> tuple[Any, Samples, dict[str, Any]]:
    """The model, the samples, and how these are read."""
    from collapse_audit.network import open_samples
    from collapse_audit.network.measurement import cached_features

    load = partial(
        load,
        resolved,
        branch=audit.branch,
        backbone=options.backbone,
        backbone_arguments=options.backbone_arg,
    )
    if options.features is None:
        samples = open_samples(options.data)
        model = load(images=samples.images is not None)
        return model, samples, _reading(model, options, audit.device)
    model = load(images=True)
    reading = _reading(model, options, audit.device)
    told = _counter("features", progress, options.limit)
    samples = cached_features(model, options.data, options.features, **reading, progress=told)
    return model, samples, reading


def _reading(model: ImageModel, options: MLCDOptions, device: str) -> dict[str, Any]:
    return {
        "preprocessing": _preprocessing(model, options),
        "limit": options.limit,
        "seed": options.seed,
        "batch_size": options.batch_size,
        "workers": options.workers,
        "skip_bad": options.skip_bad,
        "device": device,
    }


def _counter(stage: str, progress: Progress, total: int | None) -> Callable[[int], None]:
    """Turn numbers of new samples into how far the work is."""
    done = 0

    def advance(more: int) -> None:
        nonlocal done
        done += more
        progress(stage, done, max(total or done, done))

    return advance


def _preprocessing(model: ImageModel, options: MLCDOptions) -> Preprocessing | None:
    from collapse_audit.network.preprocessing import preprocessing_for

    if options.preprocessing is None and options.resize is None:
        return None
    profile = options.preprocessing or model.recipe.preprocessing
    found = preprocessing_for(profile, resize=options.resize)
    return found if options.resize is not None else found.fitted(model.side)
