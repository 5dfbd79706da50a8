"""The MLCD of a report as text: prototypes and unique prototypes side by side."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

_MEASURES: Final = (
    ("entropy (nats)", "entropy"),
    ("perplexity", "perplexity"),
    ("KL(p || prior)", "kl_to_prior"),
    ("KL(prior || p)", "kl_from_prior"),
    ("Jensen-Shannon", "js"),
    ("total variation", "tv"),
)
_USAGE: Final = (
    ("classes used (argmax)", "used"),
    ("  expected by chance", "expected_used"),
    ("mass of top 10 %", "head_mass"),
    ("mass of next 40 %", "medium_mass"),
    ("mass of last 50 %", "tail_mass"),
)
_CENTRES: Final = {
    "file": "centre from the file",
    "estimated": "centre estimated over these samples",
    "none": "no centre",
}


def mlcd_rows(mlcd: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What each number is, over the K prototypes, and over the M unique ones.

    Args:
        mlcd: The ``mlcd`` object of a report.

    Returns:
        Rows of text; a cell is empty where there is no number.
    """
    rows = [
        (label, _number(mlcd["k"][key]), _number(mlcd["m"][key]) if mlcd["m"] else "")
        for label, key in _MEASURES
    ]
    k, m = mlcd["usage"]["k"], mlcd["usage"].get("m")
    rows += [(label, _number(k[key]), _number(m[key]) if m else "") for label, key in _USAGE]
    if labels := mlcd.get("labels"):
        for label, key in (
            ("label information (nats)", "mutual_information"),
            (f"labels merged, of {labels['number']}", "merged"),
        ):
            other = _number(labels["m"][key]) if "m" in labels else ""
            rows.append((label, _number(labels["k"][key]), other))
    return rows


def mlcd_headline(mlcd: dict[str, Any]) -> list[str]:
    """What was measured, and the numbers that copies of prototypes cannot change.

    Args:
        mlcd: The ``mlcd`` object of a report.

    Returns:
        Lines of text.
    """
    error = mlcd.get("mean_entropy_error")
    spread = f" +- {error:.2g}" if error is not None else ""
    corrected = mlcd["mutual_information_corrected"]
    return [
        f"MLCD of {mlcd['n']:,} samples, temperature {mlcd['temperature']:g}, "
        f"{_CENTRES[mlcd['centre']]}, {mlcd['assignment']}, {mlcd['prior']} prior",
        f"mutual information {_number(mlcd['mutual_information'])} nats "
        f"({_number(corrected)} corrected for the finite sample); copies cannot inflate it",
        f"mean entropy {_number(mlcd['mean_entropy'])}{spread} nats, "
        f"mean max probability {_number(mlcd['mean_max_probability'])}",
    ]


def mlcd_table(mlcd: dict[str, Any]) -> str:
    """A block for a terminal.

    Args:
        mlcd: The ``mlcd`` object of a report.

    Returns:
        Lines of at most 100 columns, ending in a newline.
    """
    lines = [*mlcd_headline(mlcd), "", f"{'':28}{'K prototypes':>14}{'M unique':>14}"]
    lines += [f"{label:28}{k:>14}{m:>14}" for label, k, m in mlcd_rows(mlcd)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def mlcd_markdown(mlcd: dict[str, Any]) -> str:
    """The same as Markdown.

    Args:
        mlcd: The ``mlcd`` object of a report.

    Returns:
        A list and a table, ending in a newline.
    """
    return "\n".join([*_markdown(mlcd), ""])


def mlcd_csv(mlcd: dict[str, Any]) -> str:
    """The rows as comma-separated values.

    Args:
        mlcd: The ``mlcd`` object of a report.

    Returns:
        A header and one line per quantity, ending in a newline.
    """
    names = [("mutual_information", mlcd["mutual_information"], mlcd["mutual_information"])]
    names += [(key, mlcd["k"][key], mlcd["m"][key] if mlcd["m"] else None) for _, key in _MEASURES]
    k, m = mlcd["usage"]["k"], mlcd["usage"].get("m") or {}
    names += [(key, k[key], m.get(key)) for _, key in _USAGE]
    lines = [",".join("" if v is None else str(v) for v in row) for row in names]
    return "\n".join(["quantity,k,m", *lines, ""])


def _markdown(mlcd: dict[str, Any]) -> Iterator[str]:
    yield "## Marginal latent class distribution"
    yield ""
    for line in mlcd_headline(mlcd):
        yield f"- {line}"
    yield ""
    yield "| | K prototypes | M unique |"
    yield "|---|--:|--:|"
    for label, k, m in mlcd_rows(mlcd):
        yield f"| {label.strip().replace('||', '&#124;&#124;')} | {k} | {m} |"


def _number(value: float | None) -> str:
    if value is None:
        return "infinite"
    if isinstance(value, int):
        return f"{value:,}"
    if value and abs(value) < 1e-4:
        return f"{value:.2e}"
    return f"{value:,.4f}" if abs(value) < 1000 else f"{value:,.1f}"
