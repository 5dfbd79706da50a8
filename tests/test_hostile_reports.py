"""Reports, baselines and logs of the monitor as somebody else may have changed them."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from collapse_audit.cli import main
from collapse_audit.monitor.trackers import _begin_run

CASES = 150
VALUES: list[Any] = [
    None, True, -1, 0, 1, 2**63, 10**400, 1.5, 1e308, "", "x", "1", "\ud800\x1b", "::error::a", [],
    {}, ["x"], [1], [[1, 2]], {"a": 1}, [None],
]  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place of a document, and of long lists the first few."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value[:4])
    for key, child in inner if isinstance(value, dict | list) else ():
        yield from places(child, (*path, key)) if isinstance(child, dict | list) else [(*path, key)]


def changed(document: Any, draw: random.Random) -> Any:
    """The document with one or two of its values removed or replaced."""
    copy = json.loads(json.dumps(document))
    for path in draw.choices([*places(document)], k=draw.randint(1, 2)):
        target = copy
        try:
            for key in path[:-1]:
                target = target[key]
            if draw.random() < 0.15:
                del target[path[-1]]
            else:
                target[path[-1]] = draw.choice(VALUES)
        except (KeyError, IndexError, TypeError):  # the first change took it away
            pass
    return copy


def test_a_changed_report_is_compared_or_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, other = str(tmp_path / "good.json"), tmp_path / "other.json"
    assert main(["audit", "demo", "--format", "json", "-o", good]) == 0
    document = json.loads(Path(good).read_text())
    for seed in range(CASES):
        draw = random.Random(seed)
        other.write_text(json.dumps(changed(document, draw)))
        for arguments in (
            ["check", good, "--baseline", str(other)],
            ["check", str(other), "--baseline", good, "--format", "github"],
            ["compare", good, str(other), "--format", draw.choice(["table", "markdown", "csv"])],
        ):
            capsys.readouterr()
            code = main(arguments)
            error = capsys.readouterr().err
            assert code in (0, 1, 2), (seed, error)
            assert "internal error" not in error, (seed, error)
            assert code != 2 or re.fullmatch(r"error: .+\n", error), (seed, error)


LINES = {
    b'{"run": 3}': 4, b'{"run": "9"}': 1, b'{"run": 1e400}': 1, b'{"run": NaN}': 1,
    b"[" * 99_999: 1,
    b'{"run": %d}' % 10**400: 1, b'{"run": -7}': 1, b'{"run": true}': 1, b'{"run": [9]}': 1,
    b"[9]": 1, b"\xff\xfe\0": 1, b"9" * 5000: 1, b'{"step": 3}': 2, b"": 1,
}  # fmt: skip


@pytest.mark.parametrize("line", LINES, ids=range(len(LINES)))
def test_a_log_of_other_things_does_not_keep_a_training_from_beginning(
    tmp_path: Path, line: bytes
) -> None:
    (tmp_path / "log.jsonl").write_bytes(line)
    assert _begin_run(tmp_path / "log.jsonl") == LINES[line]
    (tmp_path / "log.jsonl").write_bytes(b'{"run": 2, "step": 1}\n' + line + b"\n")
    assert _begin_run(tmp_path / "log.jsonl") == max(3, LINES[line])
