"""`collapse-audit mlcd`: what a head really predicts."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import click

from collapse_audit.cli.console import Session, check_output, emit
from collapse_audit.cli.formats import render
from collapse_audit.cli.options import OutputOptions, output_options
from collapse_audit.cli.progress import progress_bars
from collapse_audit.errors import ParameterError
from collapse_audit.prototypes import Branch, check_epsilon
from collapse_audit.report.mlcd_text import mlcd_csv, mlcd_markdown, mlcd_table

if TYPE_CHECKING:
    from collapse_audit.features import HeadModel, Preprocessing, Samples
    from collapse_audit.mlcd import MLCD
    from collapse_audit.similarity import Progress

_DEMO: Final = "demo"
_FORMATS: Final = ("table", "json", "csv", "markdown")


@dataclass(frozen=True, slots=True)
class _Options:
    """What to run through the head, and how."""

    data: str
    epsilon: float
    head: str | None
    branch: Branch
    checkpoint_dir: Path | None
    temperature: float | None
    centre: Literal["file", "estimate", "none"] | None
    prior: Literal["uniform", "power-law"]
    assignment: Literal["softmax", "sinkhorn"]
    preprocessing: str | None
    resize: int | Literal["none"] | None
    backbone: str | None
    backbone_arg: dict[str, Any]
    features: Path | None
    limit: int | None
    seed: int
    batch_size: int
    workers: int
    dtype: Literal["float32", "float64"]
    device: str | None


def _parse_resize(
    _ctx: click.Context, _option: click.Parameter, value: str | None
) -> int | str | None:
    if value is None or value == "none":
        return value
    if not value.isdigit() or int(value) < 1:
        raise ParameterError(f"--resize must be a number of pixels or none, got {value!r}.")
    return int(value)


def _parse_arguments(
    _ctx: click.Context, _option: click.Parameter, values: tuple[str, ...]
) -> dict[str, Any]:
    parsed = {}
    for text in values:
        key, equals, value = text.partition("=")
        if not equals or not key.isidentifier():
            raise ParameterError(f"--backbone-arg must be key=value, got {text!r}.")
        try:
            parsed[key] = json.loads(value)
        except json.JSONDecodeError:
            parsed[key] = value
    return parsed


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
@click.argument("source")
@click.option("--data", required=True, metavar="DATA", help="Samples to run through the head.")
@click.option(
    "--epsilon",
    type=float,
    default=0.025,
    show_default=True,
    callback=lambda _ctx, _option, value: check_epsilon(value),
    help="Cosine distance strictly below which two prototypes are duplicates.",
)
@click.option("--head", metavar="NAME", help="Which head; the image-level one by default.")
@click.option(
    "--branch",
    type=click.Choice(["teacher", "student"]),
    default="teacher",
    show_default=True,
    help="Which network, where the file holds both.",
)
@click.option(
    "--checkpoint-dir",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Where to look for the files of manifest ids.",
)
@click.option("--temperature", type=float, metavar="T", help="Softmax temperature.")
@click.option(
    "--centre",
    type=click.Choice(["file", "estimate", "none"]),
    help="Centre of the logits; by default what the family does.",
)
@click.option(
    "--prior", type=click.Choice(["uniform", "power-law"]), default="uniform", show_default=True
)
@click.option(
    "--assignment",
    type=click.Choice(["softmax", "sinkhorn"]),
    default="softmax",
    show_default=True,
    help="How logits become probabilities.",
)
@click.option("--preprocessing", metavar="PROFILE", help="Instead of the family's own.")
@click.option(
    "--resize",
    metavar="N|none",
    callback=_parse_resize,
    help="Side of the images in pixels, or none to leave them as they are.",
)
@click.option("--backbone", metavar="TIMM_NAME", help="A timm model to put the weights into.")
@click.option(
    "--backbone-arg",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_parse_arguments,
    help="Argument of the backbone, such as num_heads=4; may be repeated.",
)
@click.option(
    "--features",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Keep the backbone features in this .safetensors file, and use them if it exists.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Take N random samples.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of that choice.")
@click.option("--batch-size", type=click.IntRange(1), default=64, show_default=True)
@click.option("--workers", type=click.IntRange(0), default=0, show_default=True)
@click.option(
    "--dtype", type=click.Choice(["float32", "float64"]), default="float32", show_default=True
)
@click.option("--device", metavar="DEVICE", help="Torch device; a GPU by default if there is one.")
@output_options
def mlcd_command(source: str, output: OutputOptions, **values: Any) -> None:
    """Measure the latent classes of SOURCE over its prototypes and over the unique ones.

    Runs samples through backbone and head. A head with copied prototypes looks nearly uniform
    over all K of them and far from uniform over the M unique ones; the mutual information is the
    number that copies cannot inflate. SOURCE is a checkpoint, an id of the manifest, or demo.
    """
    _check_format(output.form)
    if output.output is not None:
        check_output(output.output, source)
    quiet = click.get_current_context().ensure_object(Session).quiet
    with progress_bars(wanted=output.progress and not quiet) as progress:
        report = _measure(source, _Options(**values), progress)
    emit(_render(report, output), output.output)


def _check_format(form: str) -> None:
    """Refuse formats that have no place for an MLCD, before the work."""
    if form not in _FORMATS:
        raise click.UsageError(f"mlcd has no --format {form}; use {', '.join(_FORMATS)}.")


def _render(report: dict[str, Any], output: OutputOptions) -> str:
    mlcd = report["heads"][0]["mlcd"]
    if output.form == "csv":
        return mlcd_csv(mlcd)
    text: str = render(report, output.form, to_terminal=output.output is None)
    if output.form == "table":
        text += "\n" + mlcd_table(mlcd)
    elif output.form == "markdown":
        text += "\n" + mlcd_markdown(mlcd)
    return text


def _measure(source: str, options: _Options, progress: Progress) -> dict[str, Any]:
    """The report of an audit, with the MLCD in it."""
    from collapse_audit.audit import Source, audit_prototypes, build_report
    from collapse_audit.features import load_head_model, open_samples

    path, described = _locate(source, options.checkpoint_dir)
    load = partial(
        load_head_model,
        path,
        branch=options.branch,
        head=options.head,
        backbone=options.backbone,
        backbone_arguments=options.backbone_arg,
        family=described["family"],
    )
    if options.features is None:
        samples = open_samples(options.data)
        model = load(images=samples.images is not None)
    else:
        model = load(images=True)
        samples = _cached_features(model, options.features, options, progress)
    audit = audit_prototypes(
        model.prototypes, epsilon=options.epsilon, source=Source(**described), progress=progress
    )
    report: dict[str, Any] = build_report([audit])
    mlcd = _run(model, samples, audit.groups, options, progress)
    report["heads"][0]["mlcd"] = mlcd.to_dict()
    return report


def _cached_features(
    model: HeadModel, cache: Path, options: _Options, progress: Progress
) -> Samples:
    from collapse_audit.features import cached_features

    return cached_features(
        model,
        options.data,
        cache,
        preprocessing=_preprocessing(model, options),
        limit=options.limit,
        seed=options.seed,
        batch_size=options.batch_size,
        workers=options.workers,
        device=options.device,
        progress=_counter("features", progress, options.limit),
    )


def _run(
    model: HeadModel, samples: Samples, groups: Any, options: _Options, progress: Progress
) -> MLCD:
    from collapse_audit.features import measure_mlcd

    return measure_mlcd(
        model,
        samples,
        groups=groups,
        temperature=options.temperature,
        centre=options.centre,
        prior=options.prior,
        assignment=options.assignment,
        preprocessing=_preprocessing(model, options),
        limit=options.limit,
        seed=options.seed,
        batch_size=options.batch_size,
        workers=options.workers,
        dtype=options.dtype,
        device=options.device,
        progress=_counter("samples", progress, min(options.limit or len(samples), len(samples))),
    )


def _counter(stage: str, progress: Progress, total: int | None) -> Callable[[int], None]:
    """Turn numbers of new samples into how far the work is."""
    done = 0

    def advance(more: int) -> None:
        nonlocal done
        done += more
        progress(stage, done, max(total or done, done))

    return advance


def _preprocessing(model: HeadModel, options: _Options) -> Preprocessing | None:
    from collapse_audit.features import preprocessing_for

    if options.preprocessing is None and options.resize is None:
        return None
    profile = options.preprocessing or model.recipe.preprocessing
    found = preprocessing_for(profile, resize=options.resize)
    return found if options.resize is not None else found.fitted(model.side)


def _locate(source: str, checkpoint_dir: Path | None) -> tuple[Path, dict[str, Any]]:
    """The file, and what to call it in the report."""
    if source == _DEMO:
        from collapse_audit.examples import embedded_head

        return embedded_head(), {"spec": _DEMO, "family": "dino"}
    from collapse_audit.checkpoints import locate_source

    found = locate_source(source, checkpoint_dir=checkpoint_dir)
    return found.path, {"spec": found.spec, "id": found.id, "family": found.family}
