"""Samples through the head of a source, as the options say: what `mlcd` and `gallery` measure."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from collapse_audit.cli.assignments import check_suffix, write_assignments
from collapse_audit.cli.console import check_output
from collapse_audit.cli.mlcd_options import MLCDOptions
from collapse_audit.cli.options import AuditOptions
from collapse_audit.cli.remote_options import reporter

if TYPE_CHECKING:
    from collapse_audit.head_audit import CollapseAudit
    from collapse_audit.network.datasets import Samples
    from collapse_audit.network.image_model import ImageModel
    from collapse_audit.network.preprocessing import Preprocessing
    from collapse_audit.remote.settings import RemoteSettings
    from collapse_audit.similarity import Progress
    from collapse_audit.sources import ResolvedSource


def resolve(
    source: str, options: MLCDOptions, audit: AuditOptions, fetching: RemoteSettings
) -> ResolvedSource:
    """The source; files that could not be written are refused before."""
    from collapse_audit.sources import resolve_source

    if options.features is not None and not options.features.exists():
        check_output(options.features, [source], option="--features")
    if options.assignments is not None:
        check_output(options.assignments, [source], option="--assignments")
        check_suffix(options.assignments)
    return resolve_source(
        source, checkpoint_dir=audit.checkpoint_dir, settings=fetching, reporter=reporter()
    )


def measure_head(
    resolved: ResolvedSource, options: MLCDOptions, audit: AuditOptions, progress: Progress
) -> tuple[CollapseAudit, Samples]:
    """The audit of one head with its MLCD, and the samples it was measured over."""
    from collapse_audit.auditing import audit_heads
    from collapse_audit.network import load_head_model, measure_mlcd

    load = partial(load_head_model, head=audit.head)
    model, samples, reading = opened(load, resolved, options, audit, progress)
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
        progress=counter("samples", progress, min(options.limit or len(samples), len(samples))),
    )
    if options.assignments is not None:
        write_assignments(mlcd, samples.names, options.assignments)
    return audited.with_mlcd(mlcd), samples


def opened(
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
    told = counter("features", progress, options.limit)
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


def counter(stage: str, progress: Progress, total: int | None) -> Callable[[int], None]:
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
