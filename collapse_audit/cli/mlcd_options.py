"""Options of `mlcd`: which samples run through the head, and how."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import click

from collapse_audit.cli.options import option
from collapse_audit.errors import ParameterError


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


@dataclass(frozen=True, slots=True)
class MLCDOptions:
    """What to run through the head, and how; ``None`` is what the checkpoint or its family does."""

    data: str = option(required=True, metavar="DATA", help="Samples to run through the head.")
    limit: int | None = option(type=click.IntRange(1), metavar="N", help="Take N random samples.")
    seed: int = option(
        type=click.IntRange(0), default=0, show_default=True, help="Seed of --limit."
    )
    temperature: float | None = option(
        type=float,
        metavar="T",
        help="Softmax temperature; by default the checkpoint's or its family's.",
    )
    centre: Literal["file", "estimate", "none"] | None = option(
        type=click.Choice(["file", "estimate", "none"]),
        help="Centre of the logits; by default what the family does.",
    )
    prior: Literal["uniform", "power-law"] = option(
        type=click.Choice(["uniform", "power-law"]),
        default="uniform",
        show_default=True,
        help="Distribution that the divergences compare with.",
    )
    assignment: Literal["softmax", "sinkhorn"] = option(
        type=click.Choice(["softmax", "sinkhorn"]),
        default="softmax",
        show_default=True,
        help="How logits become probabilities.",
    )
    preprocessing: str | None = option(metavar="PROFILE", help="Another than the family's own.")
    resize: int | Literal["none"] | None = option(
        metavar="N|none",
        callback=_parse_resize,
        help="Side of the images in pixels, or none to leave them as they are.",
    )
    backbone: str | None = option(metavar="TIMM_NAME", help="A timm model to put the weights into.")
    backbone_arg: dict[str, Any] = option(
        multiple=True,
        metavar="KEY=VALUE",
        callback=_parse_arguments,
        help="Argument of the backbone, such as num_heads=4; may be repeated.",
    )
    features: Path | None = option(
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Keep the backbone features in this .safetensors file, and use them if it exists.",
    )
    assignments: Path | None = option(
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="FILE",
        help="Write prototype and unique class of every sample to this .csv or .parquet file.",
    )
    batch_size: int = option(
        type=click.IntRange(1), default=64, show_default=True, help="Samples per forward pass."
    )
    workers: int = option(
        type=click.IntRange(0), default=0, show_default=True, help="Processes that read images."
    )
    skip_bad: bool = option(
        default=False, help="Continue even if more than 1 % of the images cannot be read."
    )
    dtype: Literal["float32", "float64"] = option(
        type=click.Choice(["float32", "float64"]),
        default="float32",
        show_default=True,
        help="Precision of networks and softmax.",
    )
