"""`collapse-audit mlcd`: what a head really predicts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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

if TYPE_CHECKING:
    from collapse_audit.head_audit import CollapseAudit
    from collapse_audit.network import HeadModel
    from collapse_audit.network.preprocessing import Preprocessing
    from collapse_audit.remote.settings import RemoteSettings
    from collapse_audit.similarity import Progress


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
    number that copies cannot inflate. SOURCE is what `audit` takes; of a file at an address
    the head and, for images, the backbone are fetched.
    """
    deliver([(source, partial(_measure, source, mlcd, audit, fetching))], output)


def _measure(
    source: str,
    options: MLCDOptions,
    audit: AuditOptions,
    fetching: RemoteSettings,
    progress: Progress,
) -> list[CollapseAudit]:
    """The audit of one head, with its MLCD."""
    from collapse_audit.auditing import audit_heads
    from collapse_audit.network import load_head_model, measure_mlcd, open_samples
    from collapse_audit.network.measurement import cached_features
    from collapse_audit.sources import resolve_source

    resolved = resolve_source(
        source, checkpoint_dir=audit.checkpoint_dir, settings=fetching, reporter=reporter()
    )
    load = partial(
        load_head_model,
        resolved,
        branch=audit.branch,
        head=audit.head,
        backbone=options.backbone,
        backbone_arguments=options.backbone_arg,
    )
    if (cache := options.features) is None:
        samples = open_samples(options.data)
        model = load(images=samples.images is not None)
        reading = _reading(model, options, audit.device)
    else:
        if not cache.exists():
            check_output(cache, [source], option="--features")
        model = load(images=True)
        reading = _reading(model, options, audit.device)
        told = _counter("features", progress, options.limit)
        samples = cached_features(model, options.data, cache, **reading, progress=told)
    if options.temperature is None:
        _ = model.temperature  # refused before the audit, not after it
    (audited,) = audit_heads(
        resolved,
        (model.prototypes,),
        epsilon=audit.epsilon,
        sweep=audit.sweep,
        nearest=audit.nearest,
        device=audit.device,
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


def _reading(model: HeadModel, options: MLCDOptions, device: str) -> dict[str, Any]:
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


def _preprocessing(model: HeadModel, options: MLCDOptions) -> Preprocessing | None:
    from collapse_audit.network.preprocessing import preprocessing_for

    if options.preprocessing is None and options.resize is None:
        return None
    profile = options.preprocessing or model.recipe.preprocessing
    found = preprocessing_for(profile, resize=options.resize)
    return found if options.resize is not None else found.fitted(model.side)
