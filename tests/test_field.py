"""Files rebuilt from public reports of people who do this work; truth.json says what each gives."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from collapse_audit.cli import main

_FOLDER = Path(__file__).resolve().parents[2] / "shared" / "field"
_TRUTH = _FOLDER / "truth.json"
ENTRIES: list[dict[str, Any]] = json.loads(_TRUTH.read_text()) if _TRUTH.is_file() else []


def _name(entry: dict[str, Any]) -> str:
    return f"{entry.get('do', 'audit')} {entry['file']}"


@pytest.mark.parametrize("entry", ENTRIES, ids=_name)
def test_every_file_gives_what_the_truth_says(
    entry: dict[str, Any], shared_field: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = ["--data", str(shared_field / entry["data"])] if "data" in entry else []
    code = main([entry.get("do", "audit"), str(shared_field / entry["file"]), *data, "--json"])
    out, err = capsys.readouterr()
    assert "internal error" not in (out + err).lower()
    assert "Traceback" not in out + err
    refused = entry.get("exit", entry.get("or_exit")) == code == 2
    if refused:
        assert re.search(entry["says"], err)
        assert not re.search(entry.get("not_says", "(?!)"), err)
        return
    assert code == entry.get("exit", 0), err
    report = json.loads(out)
    if "mi" in entry:
        mlcd = report["heads"][0]["mlcd"]
        assert mlcd["mutual_information"] == pytest.approx(entry["mi"], abs=0.01)
        return
    counts = sorted(head["unique"]["greedy"] for head in report["heads"])
    sizes = {head["k"] for head in report["heads"]}
    is_right = counts == sorted(entry["m"]) and ("k" not in entry or sizes == {entry["k"]})
    # the only other answer: a matrix taken as it lies, with a word about it
    assert is_right or re.search(entry.get("or_note", "(?!)"), out + err), (counts, sizes)
