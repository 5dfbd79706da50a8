"""The measurements as Markdown: one table per case, and the machine; one of the targets."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.methods import Method
from benchmarks.records import Record, machine
from benchmarks.targets import MOST_MEMORY_MB, most_memory, verdicts

BEGIN, END = "<!-- measured:begin -->", "<!-- measured:end -->"
_HEADER = (
    "| | wall s | CPU s | MB above input | times ours, wall (CPU) | times float32, wall (CPU) |\n"
    "|---|---:|---:|---:|---:|---:|"
)


def render(records: Sequence[Record], methods: Sequence[Method], *, threads: int) -> str:
    """Everything that was measured.

    Args:
        records: The cases, in the order of their tables.
        methods: What was measured, in the order of the lines.
        threads: Threads of each process.

    Returns:
        Markdown without a title, for a page that explains it.
    """
    parts = [_machine(threads, records), *(_case(record, methods) for record in records)]
    return "\n\n".join(parts) + "\n"


def render_targets(records: Sequence[Record], methods: Sequence[Method]) -> str:
    """Every target that was measured, and whether it was held; empty if none was.

    Args:
        records: The cases.
        methods: What was measured.

    Returns:
        Markdown with a title.
    """
    labels = {method.name: method.label for method in methods}
    lines = [
        f"| {target.case}: {labels[target.method]} / {labels[target.base]} "
        f"| {'at least' if target.at_least else 'at most'} {target.limit:g} "
        f"| {wall:.3g} ({cpu:.3g}) | {_verdict(wall, target.limit, at_least=target.at_least)} |"
        for target, wall, cpu in verdicts(records)
    ]
    if not lines:
        return ""
    peak = most_memory(records)
    if peak is not None:
        verdict = _verdict(peak, MOST_MEMORY_MB, at_least=False)
        name, limit = "our tasks: MB above the input", f"at most {MOST_MEMORY_MB:g}"
        lines.append(f"| {name} | {limit} | {peak:.0f} | {verdict} |")
    header = "| K = 65,536, D = 256 | target | measured, wall (CPU) | |\n|---|---|---:|---|"
    return "\n".join(["### Targets", "", header, *lines, ""])


def insert(page: str, table: str, marks: tuple[str, str] = (BEGIN, END)) -> str:
    """A page with the table between its two marks.

    Args:
        page: Text that holds both marks.
        table: What ``render`` gave.
        marks: Lines of the page that it stands between.

    Returns:
        The new text.

    Raises:
        ValueError: If a mark is missing.
    """
    begin, end = marks
    if begin not in page or end not in page:
        raise ValueError(f"the page has no {begin} and {end}.")
    head, rest = page.split(begin, 1)
    return f"{head}{begin}\n\n{table}\n{end}{rest.split(end, 1)[1]}"


def _machine(threads: int, records: Sequence[Record]) -> str:
    here = machine()
    packages = ", ".join(f"{name} {number}" for name, number in here["packages"].items())
    loads = [s.load for r in records for group in r.samples.values() for s in group]
    load = f" Load average before the measurements: at most {max(loads):.1f}." if loads else ""
    return (
        f"{here['processor']}, {here['cores']} cores, {here['memory_gb']} GB, {here['system']}; "
        f"{threads} threads with OMP_WAIT_POLICY=passive. Python {here['python']}, {packages}."
        f"{load}"
    )


def _case(record: Record, methods: Sequence[Method]) -> str:
    exact = record.reference.counts
    title = (
        f"### {record.name.capitalize()}, K = {record.k:,}, D = {record.d}\n\n"
        f"M = {exact.greedy:,}, {exact.components:,} components, {exact.isolated:,} isolated, "
        f"{exact.pairs:,} pairs of duplicates."
    )
    lines = [_line(record, method) for method in methods if method.name in record.samples]
    failed = [f"- {why}" for why in record.failures.values()]
    return "\n".join([title, "", _HEADER, *lines, *([""] if failed else []), *failed])


def _line(record: Record, method: Method) -> str:
    first = record.samples[method.name][0]
    marks = f" ({first.note})" if first.note else ""
    marks += ", extrapolated" if first.share < 1 else ""
    wall, cpu, peak = (record.median(method.name, q) or 0.0 for q in ("wall", "cpu", "peak_mb"))
    ratios = [_ratios(record, method, suffix) for suffix in ("auto", "float32")]
    cells = [f"{method.label}{marks}", f"{wall:.3g}", f"{cpu:.3g}", f"{peak:.0f}", *ratios]
    return f"| {' | '.join(cells)} |"


def _ratios(record: Record, method: Method, suffix: str) -> str:
    base = f"{method.task}-{suffix}"
    wall, cpu = (record.ratio(method.name, base, quantity) for quantity in ("wall", "cpu"))
    if wall is None or cpu is None or method.name == base:
        return ""
    return f"{wall:.3g} ({cpu:.3g})"


def _verdict(measured: float, limit: float, *, at_least: bool) -> str:
    held = measured >= limit if at_least else measured <= limit
    return "held" if held else "**missed**"
