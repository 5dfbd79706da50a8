"""`collapse-audit demo`: the main job on the head inside the package, offline."""

from __future__ import annotations

from functools import partial

import click

from collapse_audit.cli.console import Session, say
from collapse_audit.cli.options import AuditOptions, OutputOptions, options_of, output_options
from collapse_audit.cli.pipeline import audits_of, deliver
from collapse_audit.sources import DEMO

_NEXT_STEPS = (
    "collapse-audit YOUR_CHECKPOINT.pth   audits a file of your own (.pth, .safetensors, .npy)",
    "collapse-audit info YOUR_FILE        shows the heads in it",
    "collapse-audit list                  shows the public checkpoints; each id can be audited",
    "collapse-audit demo -o report.html   writes this report as a page",
)


@click.command(
    name="demo",
    epilog="""\b
Examples:
  collapse-audit demo
  collapse-audit demo --epsilon 0.1 --format markdown""",
)
@options_of(AuditOptions, "audit")
@output_options
@click.pass_obj
def demo_command(session: Session, audit: AuditOptions, output: OutputOptions) -> None:
    """Audit the small head that ships inside the package: no network, no files needed.

    The head was trained on digits by `collapse-audit train`, without a regulariser, and collapsed:
    112 of its 512 prototypes are unique. Nothing was planted, so M depends on the counting
    rule, and the bracket says how much.
    """
    deliver([(DEMO, partial(audits_of, DEMO, audit))], output)
    if not session.quiet:
        for step in _NEXT_STEPS:
            say("hint", step, session)
