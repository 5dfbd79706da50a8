"""Reports on disk: what is written, and what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from collapse_audit.errors import ReportError, SourceError
from collapse_audit.gate.files import parse_report, read_report, write_report
from tests.gate.conftest import edited


def test_a_written_baseline_reads_back_the_same(tmp_path: Path, report: dict[str, Any]) -> None:
    path = tmp_path / "baseline.json"
    write_report(report, path)
    assert read_report(path) == report
    assert [p.name for p in tmp_path.iterdir()] == ["baseline.json"]


def test_a_crash_while_writing_leaves_the_old_baseline(
    tmp_path: Path, report: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "baseline.json"
    path.write_text("old", encoding="utf-8")

    def crash(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(SourceError, match=r"cannot be written \(No space left on device\)"):
        write_report(report, path)
    assert path.read_text(encoding="utf-8") == "old"


BROKEN = [
    ("", "not valid JSON"),
    ("{", "Was it cut off"),
    ("[]", "holds the reports of several sources"),
    ("{}", "not a report of collapse-audit"),
    ("[" * 100_000, "not valid JSON"),
    ('{"schema": "collapse-audit/report", "x": NaN}', "NaN is not a JSON number"),
    ('{"schema": "collapse-audit/error"}', "records an error"),
    ('{"schema": "collapse-audit/report"}', "schema version is None"),
    ('{"schema": "collapse-audit/report", "schema_version": 1.0}', "schema version is 1.0"),
    ('{"schema": "collapse-audit/report", "schema_version": "2.0"}', "knows 1.x only. Update"),
    ('{"schema": "collapse-audit/report", "schema_version": "1.7"}', "has no heads"),
    (
        '{"schema": "collapse-audit/report", "schema_version": "1.0", "heads": [{}]}',
        "has no parameters",
    ),
]


@pytest.mark.parametrize(("text", "message"), BROKEN)
def test_what_is_no_report_is_refused(text: str, message: str) -> None:
    with pytest.raises(ReportError, match=message):
        parse_report(text, "b.json")


def test_a_truncated_report_is_refused_wherever_it_was_cut(report: dict[str, Any]) -> None:
    text = json.dumps(report)
    for end in range(0, len(text), 97):
        with pytest.raises(ReportError, match="not valid JSON"):
            parse_report(text[:end], "b.json")


def test_a_damaged_head_is_named(report: dict[str, Any]) -> None:
    broken = edited(report, lambda r: r["heads"][0].pop("k"))
    with pytest.raises(ReportError, match=r"heads\[0\] has no k"):
        parse_report(json.dumps(broken), "b.json")


def test_a_later_minor_version_with_unknown_keys_is_read(report: dict[str, Any]) -> None:
    later = edited(report, lambda r: r.update(schema_version="1.9", novelty=1))
    assert parse_report(json.dumps(later), "b.json")["novelty"] == 1


def test_a_missing_or_binary_file_is_a_report_error(tmp_path: Path) -> None:
    with pytest.raises(ReportError, match=r"gone.json: No such file"):
        read_report(tmp_path / "gone.json")
    (tmp_path / "binary.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ReportError, match="not even text"):
        read_report(tmp_path / "binary.json")
