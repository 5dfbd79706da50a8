"""Train once for every combination of settings; resumable, with a table and a figure."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from collapse_audit.errors import ParameterError
from collapse_audit.files import read_json, replacing
from collapse_audit.report.columns import pipe_table
from collapse_audit.training.checkpointing import sole_use, write_text
from collapse_audit.training.config import HeadTrainingConfig, check_setting, setting_type
from collapse_audit.training.evaluate import look_up
from collapse_audit.training.run import run_training
from collapse_audit.words import did_you_mean

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_COLUMNS = {
    "M": ("unique", "greedy"),
    "M/K": ("unique_fraction",),
    "r_max": ("largest_redundancy_factor",),
    "perplexity": ("perplexity",),
    "perplexity over unique": ("unique_perplexity",),
    "MI": ("mutual_information",),
    "kNN": ("probes", "knn"),
    "linear": ("probes", "linear"),
}
_TRUTH = {"true": True, "false": False}


def parse_sweep(text: str) -> tuple[str, list[Any]]:
    """Read one ``name=a,b,c``: the name of a setting, and values of its type."""
    typed, _, values = text.partition("=")
    name = typed.strip().replace("-", "_")
    entries = {entry.name: entry for entry in dataclasses.fields(HeadTrainingConfig)}
    given = [value for value in values.split(",") if value]
    if name not in entries or not given:
        raise ParameterError(
            f"sweep {text}: not name=a,b,... of a setting.",
            hint=("" if name in entries else did_you_mean(name, entries))
            or "Write the values behind an equals sign, with commas between them.",
        )
    kind, _ = setting_type(entries[name])
    try:
        parsed = [_TRUTH[value.lower()] if kind is bool else kind(value) for value in given]
    except (ValueError, KeyError) as error:
        raise ParameterError(
            f"sweep {text}: {name} takes values of type {kind.__name__}."
        ) from error
    for value in parsed:
        check_setting(entries[name], value, f"sweep: {typed.strip()}")
    return name, parsed


def run_sweep(
    config: HeadTrainingConfig, sweeps: Sequence[str], folder: Path, *, quiet: bool = False
) -> list[dict[str, Any]]:
    """Train every combination that is not trained yet; one row of settings and numbers for each."""
    # Every run has a folder of its own, named after its settings; finished ones are read back,
    # unfinished ones resumed. sweep.json, sweep.md and, if k or weight varies, sweep.svg are
    # written anew after every run.
    names, values = zip(*(parse_sweep(text) for text in sweeps), strict=True)
    combinations = [dict(zip(names, each, strict=True)) for each in itertools.product(*values)]
    configs = [dataclasses.replace(config, **settings) for settings in combinations]
    rows: list[dict[str, Any]] = []
    with sole_use(folder):
        for settings, each in zip(combinations, configs, strict=True):
            name = "_".join(f"{key}-{value}" for key, value in settings.items()).replace("/", "-")
            if not quiet:
                click.echo(f"[{len(rows) + 1}/{len(configs)}] {name}", err=True)
            rows.append(settings | _numbers(each, folder / name, quiet=quiet))
            _write_results(rows, folder)
    return rows


def sweep_table(rows: Iterable[dict[str, Any]]) -> str:
    """Runs of a sweep as a Markdown table, one line per run."""
    rows = list(rows)
    header = [name for name in rows[0] if any(row[name] is not None for row in rows)]
    body = [[_text(row[name]) for name in header] for row in rows]
    return "\n".join(pipe_table(header, body))


def draw_sweep(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw M against K, or M/K against the weight if only that varies, as SVG."""
    # One line per remaining combination of settings. With several seeds a line is their mean and
    # every run a dot.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    over_k = "k" in rows[0]
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    axis, number = ("k", "M") if over_k else ("weight", "M/K")
    lines = _draw_lines(axes, rows, axis, number)
    ticks = sorted({row[axis] for row in rows})
    if over_k:
        axes.plot(ticks, ticks, color="0.6", linestyle=":", label="M = K")
        axes.set(xscale="log", yscale="log", xlabel="prototypes K", ylabel="unique prototypes M")
    else:
        # weight 0 has a place too: the axis is linear up to the smallest other weight
        linear = min((x for x in ticks if x > 0), default=1.0)
        axes.set_xscale("symlog", linthresh=linear)
        axes.set(xlabel="weight of the regulariser", ylabel="unique share M / K", ylim=(0, 1.05))
    axes.set_xticks(ticks, [f"{x:g}" for x in ticks])
    axes.minorticks_off()
    if lines > 1 or over_k:
        axes.legend()
    with replacing(path) as file, rc_context({"svg.hashsalt": "collapse-audit"}):
        figure.savefig(file, format="svg", metadata={"Date": None})


def _draw_lines(axes: Axes, rows: Sequence[dict[str, Any]], axis: str, number: str) -> int:
    """One line per combination of settings, through the means over seeds; how many there are."""
    lines: dict[str, dict[float, list[float]]] = {}
    for row in rows:
        settings = [key for key in row if key not in {*_COLUMNS, axis, "seed", "stopped"}]
        label = ", ".join(str(row[key]) for key in settings) or number
        lines.setdefault(label, {}).setdefault(row[axis], []).append(row[number])
    for label, by_x in lines.items():
        xs = sorted(by_x)
        (line,) = axes.plot(xs, [sum(by_x[x]) / len(by_x[x]) for x in xs], label=label)
        dots = [(x, y) for x in xs for y in by_x[x]]
        axes.plot(*zip(*dots, strict=True), ".", color=line.get_color())
    return len(lines)


def _numbers(config: HeadTrainingConfig, folder: Path, *, quiet: bool) -> dict[str, Any]:
    """Numbers of a run: trained, resumed, or read back if it is finished."""
    finished = read_json(folder / "audit.json") or {}
    if finished.get("config") != config.to_dict():  # of another run, then, which is refused
        result = run_training(config, folder, resume=True, quiet=quiet)
        finished = {"after": result.after, "stopped": result.stopped or None}
    found = {name: look_up(finished.get("after"), keys) for name, keys in _COLUMNS.items()}
    numbers = {
        name: value if isinstance(value, int | float) else math.nan for name, value in found.items()
    }
    return numbers | {"stopped": finished.get("stopped")}


def _write_results(rows: list[dict[str, Any]], folder: Path) -> None:
    write_text(folder / "sweep.json", json.dumps(rows, indent=1) + "\n")
    write_text(folder / "sweep.md", sweep_table(rows) + "\n")
    if "k" in rows[0] or "weight" in rows[0]:
        draw_sweep(rows, folder / "sweep.svg")


def _text(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
