"""``collapse-audit train``: settings become flags, and the run's numbers a table."""

from __future__ import annotations

import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import click

from collapse_audit.cli.console import Session, say
from collapse_audit.training.config import HeadTrainingConfig, check_setting, setting_type

_TYPES: dict[type, click.ParamType[Any]] = {str: click.STRING, int: click.INT, float: click.FLOAT}


def _setting_flags(command: click.Command) -> click.Command:
    """Give the command one flag for every setting, in the order of definition."""
    for entry in dataclasses.fields(HeadTrainingConfig):
        kind, _ = setting_type(entry)
        flag = f"--{entry.name.replace('_', '-')}"
        text = entry.metadata["help"]
        if entry.metadata["choices"]:
            text += f": {', '.join(entry.metadata['choices'])}"
        if entry.default is not None:
            text += f"  [default: {str(entry.default).lower()}]"
        declaration = f"{flag}/--no-{flag[2:]}" if kind is bool else flag
        command.params.append(
            click.Option(
                [declaration],
                type=_TYPES.get(kind),
                default=None,
                help=text,
                show_default=False,
                callback=partial(_checked, entry),
            )
        )
    return command


def _checked(entry: Any, _ctx: click.Context, flag: click.Parameter, value: Any) -> Any:
    """Refuse a value out of range by the name of the flag."""
    if value is not None:
        check_setting(entry, value, flag.opts[0])
    return value


@click.command("train")
@click.option("--out", "out", type=click.Path(path_type=Path), required=True, help="run folder")
@click.option(
    "--config", "config_file", type=click.Path(path_type=Path), help="YAML or TOML file of settings"
)
@click.option("--resume", is_flag=True, help="continue the run (or sweep) that --out holds")
@click.option(
    "--sweep",
    "sweeps",
    multiple=True,
    metavar="NAME=A,B,...",
    help="train once for every combination of values; may be given several times",
)
@click.option("--format", "style", type=click.Choice(["table", "json"]), default="table")
@click.pass_obj
def train_command(
    session: Session,
    /,
    *,
    out: Path,
    config_file: Path | None,
    resume: bool,
    sweeps: tuple[str, ...],
    style: str,
    **flags: Any,
) -> None:
    """Train a prototype head, and audit it before and after.

    Flags win over the --config file. The head is written to OUT/head.safetensors; audit, mlcd and
    check take it. Exit code 1 means that the loss diverged and the head is that of the last good
    state.
    """
    config = _configuration(config_file, flags)
    if sweeps:
        _run_sweep(config, sweeps, out, session=session, style=style)
    else:
        _run_one(config, out, resume=resume, session=session, style=style)


train_command = _setting_flags(train_command)


def _configuration(config_file: Path | None, flags: dict[str, Any]) -> HeadTrainingConfig:
    given = {name: value for name, value in flags.items() if value is not None}
    config = HeadTrainingConfig.from_file(config_file) if config_file else HeadTrainingConfig()
    return dataclasses.replace(config, **given)


def _run_one(
    config: HeadTrainingConfig, out: Path, *, resume: bool, session: Session, style: str
) -> None:
    from collapse_audit.training.evaluate import comparison_table
    from collapse_audit.training.run import run_training

    result = run_training(config, out, resume=resume, quiet=session.quiet)
    if style == "json":
        click.echo((out / "audit.json").read_text(encoding="utf-8"), nl=False)
    else:
        click.echo(comparison_table(result.before, result.after))
        if not session.quiet:
            say("note", f"the head is {result.head}", session)
    if result.stopped:
        say("error", f"stopped early: {result.stopped}.", session)
        click.get_current_context().exit(1)


def _run_sweep(
    config: HeadTrainingConfig, sweeps: tuple[str, ...], out: Path, *, session: Session, style: str
) -> None:
    from collapse_audit.training.sweep import run_sweep, sweep_table

    rows = run_sweep(config, sweeps, out, quiet=session.quiet)
    click.echo(json.dumps(rows, indent=1) if style == "json" else sweep_table(rows))
