"""Options of `mlcd`: which samples run through the head, and how."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal

import click

from collapse_audit.cli.options import F, bundled
from collapse_audit.errors import ParameterError


@dataclass(frozen=True, slots=True)
class MLCDOptions:
    """What to run through the head, and how.

    Attributes:
        data: Name of the samples.
        temperature: Of the softmax; ``None`` for that of the checkpoint or its family.
        centre: Of the logits; ``None`` for what the family does.
        prior: That the divergences compare with.
        assignment: How logits become probabilities.
        preprocessing: Profile of the manifest; ``None`` for that of the checkpoint.
        resize: Side of the images, ``"none"`` to leave them, ``None`` for the profile's.
        backbone: Name of a timm model; ``None`` for the recognised one.
        backbone_arg: Arguments of the backbone.
        features: File that keeps the backbone features.
        limit: Number of samples; ``None`` for all.
        seed: Of their choice.
        batch_size: Samples per forward pass.
        workers: Processes that read images.
        dtype: Of the networks and the softmax.
    """

    data: str
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


def _parse_resize(
    _ctx: click.Context, _option: click.Parameter, value: str | None
) -> int | str | None:
    if value is None or value == "none":
        return value
    if not value.isdecimal() or int(value) < 1:
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


_DECLARED = (
    click.option("--data", required=True, metavar="DATA", help="Samples to run through the head."),
    click.option("--limit", type=click.IntRange(1), metavar="N", help="Take N random samples."),
    click.option(
        "--seed", type=click.IntRange(0), default=0, show_default=True, help="For --limit."
    ),
    click.option(
        "--temperature",
        type=float,
        metavar="T",
        help="Softmax temperature; by default the checkpoint's or its family's.",
    ),
    click.option(
        "--centre",
        type=click.Choice(["file", "estimate", "none"]),
        help="Centre of the logits; by default what the family does.",
    ),
    click.option(
        "--prior",
        type=click.Choice(["uniform", "power-law"]),
        default="uniform",
        show_default=True,
        help="What the divergences compare with.",
    ),
    click.option(
        "--assignment",
        type=click.Choice(["softmax", "sinkhorn"]),
        default="softmax",
        show_default=True,
        help="How logits become probabilities.",
    ),
    click.option("--preprocessing", metavar="PROFILE", help="Instead of the family's own."),
    click.option(
        "--resize",
        metavar="N|none",
        callback=_parse_resize,
        help="Side of the images in pixels, or none to leave them as they are.",
    ),
    click.option("--backbone", metavar="TIMM_NAME", help="A timm model to put the weights into."),
    click.option(
        "--backbone-arg",
        multiple=True,
        metavar="KEY=VALUE",
        callback=_parse_arguments,
        help="Argument of the backbone, such as num_heads=4; may be repeated.",
    ),
    click.option(
        "--features",
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Keep the backbone features in this .safetensors file, and use them if it exists.",
    ),
    click.option(
        "--batch-size",
        type=click.IntRange(1),
        default=64,
        show_default=True,
        help="Samples per forward pass.",
    ),
    click.option(
        "--workers",
        type=click.IntRange(0),
        default=0,
        show_default=True,
        help="Processes that read images.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(["float32", "float64"]),
        default="float32",
        show_default=True,
        help="Of the networks and the softmax.",
    ),
)


def mlcd_options(command: F) -> F:
    """Give a command the options of an MLCD, as one argument named ``mlcd``."""
    names = tuple(field.name for field in fields(MLCDOptions))
    return bundled(command, "mlcd", MLCDOptions, _DECLARED, names)
