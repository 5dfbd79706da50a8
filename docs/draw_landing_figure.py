"""Draw docs/figures/landing.svg from the heads that ship; with ``--check``, fail if it is stale."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from generate_cli_reference import keep

from collapse_audit import CollapseAudit, audit, embedded_head

PICTURE = Path(__file__).parent / "figures" / "landing.svg"
ROWS, STEP, SIDE = 16, 14, 12  # squares in a column; from one square to the next; of a square
TOP, LEFT = 96, 16
#: Light to dark by the number of copies: 1, 2-3, 4-7, ...; matplotlib's viridis from its light end.
SHADES = ("#d8dde6", "#7ad151", "#35b779", "#1f9e89", "#31688e", "#443983")


def blocks(found: CollapseAudit, left: int) -> Iterator[str]:
    """One path for each group of duplicates: its squares, joined where they touch."""
    placed = 0
    for factor in map(int, found.redundancy_factors):
        places = range(placed, placed + factor)
        path = ""
        for place in places:
            column, row = divmod(place, ROWS)
            below, beside = row + 1 < ROWS and place + 1 in places, place + ROWS in places
            x, y = left + STEP * column, TOP + STEP * row
            path += f"M{x} {y}h{STEP if beside else SIDE}v{STEP if below else SIDE}H{x}z"
        placed += factor
        yield f'<path fill="{SHADES[factor.bit_length() - 1]}" d="{path}"/>'


def panel(found: CollapseAudit, left: int, title: str) -> Iterator[str]:
    """A head: what it is, how many of its prototypes are unique, and its groups."""
    yield f'<text class="title" x="{left}" y="38">{title}</text>'
    count = f"{len(found.groups)} prototypes, {found.num_unique} unique"
    yield f'<text x="{left}" y="72">{count}</text>'
    yield from blocks(found, left)


def legend(width: int, y: int) -> Iterator[str]:
    """What a block and its shade mean."""
    words = "Each square is a prototype; near copies form a block, the darker the larger:"
    yield f'<text x="{LEFT}" y="{y}">{words}</text>'
    x = LEFT
    for octave, shade in enumerate(SHADES):
        low, high = 1 << octave, (2 << octave) - 1
        label = "single" if octave == 0 else f"{low}\N{EN DASH}{high}"
        yield f'<rect x="{x}" y="{y + 18}" width="22" height="22" fill="{shade}"/>'
        yield f'<text x="{x + 30}" y="{y + 36}">{label}</text>'
        x += (width - 2 * LEFT) // len(SHADES)


def draw() -> str:
    """The picture as SVG."""
    heads = [
        ("Healthy head", embedded_head().with_name("digits_koleo_proto.safetensors")),
        ("Collapsed head", embedded_head()),
    ]
    audits = [(title, audit(path, sweep=False, nearest=False)) for title, path in heads]
    side = STEP * (len(audits[0][1].groups) // ROWS)
    width, height = 2 * side + 4 * LEFT, TOP + STEP * ROWS + 92
    alt = "; ".join(f"{title}: {a.num_unique} of {len(a.groups)} unique" for title, a in audits)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
        f"<title>{alt}</title>",
        "<style>text{font:24px system-ui,sans-serif;fill:#2b2f36}"
        ".title{font-size:28px;font-weight:600}</style>",
        f'<rect width="{width}" height="{height}" rx="8" fill="#fff"/>',
    ]
    for place, (title, found) in enumerate(audits):
        parts += panel(found, LEFT + place * (side + 2 * LEFT), title)
    parts += legend(width, TOP + STEP * ROWS + 34)
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    sys.exit(keep(PICTURE, draw(), sys.argv[1:]))
