"""Everything that the command line does, from Python: the same report for the same source."""

from __future__ import annotations

import dataclasses
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from collapse_audit.auditing import audit_heads, audit_source
from collapse_audit.cli import main
from collapse_audit.errors import CheckpointError, CollapseAuditWarning, ParameterError, SourceError
from collapse_audit.head_audit import build_report
from collapse_audit.manifest import load_manifest
from collapse_audit.manifest.entries import Manifest, PublishedCount
from collapse_audit.remote.settings import RemoteSettings
from collapse_audit.report.json_text import to_json
from collapse_audit.sources import resolve_source


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_dino: bytes) -> Path:
    """A working folder with a checkpoint, and the same one as the file of an id beside it."""
    monkeypatch.setenv("COLLAPSE_AUDIT_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("dino.pth").write_bytes(small_dino)
    Path("ids").mkdir()
    Path("ids/dino_vits16.pth").write_bytes(small_dino)
    return tmp_path / "here"


@pytest.fixture
def published(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts of the id that can be compared, and some that cannot."""
    counts = (
        PublishedCount(unique=17, source="Another K", k=65536),
        PublishedCount(unique=18, source="Another threshold", epsilon=0.1),
        PublishedCount(unique=19, source="A paper", epsilon=0.025, second_hand=True),
    )
    found = load_manifest()
    entries = tuple(
        dataclasses.replace(entry, k=256, published=counts) if entry.id == "dino_vits16" else entry
        for entry in found.entries
    )
    manifest = dataclasses.replace(found, entries=entries)
    assert isinstance(manifest, Manifest)
    monkeypatch.setattr("collapse_audit.sources.load_manifest", lambda: manifest)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str, form: str = "json") -> str:
    capsys.readouterr()
    assert main(["audit", *arguments, "--format", form]) == 0
    return capsys.readouterr().out


SOURCES: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "a path": ("dino.pth", (), {}),
    "the student": ("dino.pth", ("--branch", "student"), {"branch": "student"}),
    "a head by its key": ("dino.pth", ("--head", "teacher/head.last_layer.weight_v"),
                          {"head": "teacher/head.last_layer.weight_v"}),
    "the demo": ("demo", ("--no-sweep",), {"sweep": False}),
    "an id": ("dino_vits16", ("--checkpoint-dir", "ids"), {"checkpoint_dir": Path("ids")}),
    "an id at another threshold": (
        "dino_vits16",
        ("--checkpoint-dir", "ids", "--epsilon", "0.2", "--no-nearest"),
        {"checkpoint_dir": Path("ids"), "epsilon": 0.2, "nearest": False},
    ),
    "a folder": ("dcp", (), {}),
}  # fmt: skip


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.usefixtures("published")
def test_the_report_is_that_of_the_command_line(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import warnings

    from torch.distributed import checkpoint as dcp

    state = {"model": {"teacher": {"head.last_layer.weight": torch.randn(30, 8)}}}
    with warnings.catch_warnings(action="ignore"):
        dcp.save(state, checkpoint_id="dcp", no_dist=True)
    source, arguments, options = SOURCES[name]
    audits = audit_source(source, **options)
    assert to_json(build_report(audits)) == printed(capsys, source, *arguments)


@pytest.mark.usefixtures("published")
def test_the_report_of_an_id_has_its_checksum_family_and_the_counts_that_compare(
    small_dino: bytes,
) -> None:
    (audit,) = audit_source("dino_vits16", checkpoint_dir=Path("ids"), nearest=False)
    source = audit.source
    assert (source.spec, source.id, source.family) == ("dino_vits16", "dino_vits16", "dino")
    assert source.sha256 == sha256(small_dino).hexdigest()
    assert [(p.unique, p.source) for p in source.published] == [(19, "A paper, second hand")]
    assert audit.num_unique == 20
    (other,) = audit_source("dino_vits16", checkpoint_dir=Path("ids"), epsilon=0.1, nearest=False)
    assert [p.unique for p in other.source.published] == [18]


def test_a_file_with_another_k_than_its_row_says_so_and_is_compared_with_nothing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = printed(capsys, "dino_vits16", "--checkpoint-dir", "ids", form="table")
    assert "Notes: K is 256 in this file and 65,536 in the manifest's row dino_vits16" in table
    assert "ours is" not in table
    report = json.loads(printed(capsys, "dino_vits16", "--checkpoint-dir", "ids"))
    assert report["heads"][0]["published"] is None
    assert len(report["heads"][0]["notes"]) == 1


def test_the_report_of_a_path_names_no_id_and_no_folder(folder: Path) -> None:
    (audit,) = audit_source(folder / "dino.pth", sweep=False, nearest=False)
    assert (audit.source.spec, audit.source.id, audit.source.family) == ("dino.pth", None, "dino")
    assert audit.source.published == ()
    assert str(folder) not in audit.to_json()


def test_an_address_gives_the_report_of_the_file_and_no_checksum_of_what_was_not_read(
    server: Any, folder: Path, small_dino: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLLAPSE_AUDIT_OFFLINE")
    server.files["dino.pth"] = small_dino
    settings = RemoteSettings(cache_dir=folder / "cache", insecure_http=True)
    url = server.url("dino.pth")
    (there,) = audit_source(url, settings=settings)
    (here,) = audit_source("dino.pth")
    assert (there.source.spec, there.source.sha256) == (url, None)
    assert there.head_report() == here.head_report()
    assert there.head_report()["tensor_sha256"]


def test_every_head_is_audited_on_its_own_in_file_order() -> None:
    heads = {
        "ibot_head.last_layer.weight": torch.eye(9, 9),
        "dino_head.last_layer.weight": torch.eye(5),
    }
    torch.save({"teacher": heads}, "two.pth")
    audits = audit_source("two.pth", sweep=False, nearest=False)
    assert [(a.prototypes.name, a.num_unique) for a in audits] == [
        ("ibot_head", 9),
        ("dino_head", 5),
    ]
    assert len({audit.source.sha256 for audit in audits}) == 1
    (one,) = audit_source("two.pth", head="dino_head", sweep=False, nearest=False)
    assert one.num_unique == 5


def test_a_student_is_audited_for_want_of_a_teacher_with_a_note() -> None:
    torch.save({"student": {"head.last_layer.weight": torch.eye(5)}}, "student.pth")
    with pytest.warns(CollapseAuditWarning, match="took the student"):
        (audit,) = audit_source("student.pth", sweep=False, nearest=False)
    assert "no teacher in this file; took the student" in audit.head_report()["notes"]


def test_progress_is_told_and_steps_can_be_left_out() -> None:
    stages: list[str] = []
    (audit,) = audit_source("dino.pth", progress=lambda stage, *_: stages.append(stage))
    assert stages
    assert audit.redundancy.sweep
    (short,) = audit_source("dino.pth", sweep=False, nearest=False)
    assert (short.redundancy.sweep, short.num_unique) == ((), audit.num_unique)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"epsilon": 0}, ParameterError, "epsilon must be between 0 and 1"),
        ({"epsilon": float("nan")}, ParameterError, "epsilon must be between 0 and 1"),
        ({"device": "cude"}, ParameterError, "cude"),
        ({"head": "absent"}, CheckpointError, "no head and no tensor is called 'absent'"),
        ({"branch": "nobody"}, CheckpointError, "no branch 'nobody'"),
    ],
)
def test_what_cannot_be_is_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        audit_source("dino.pth", **options)


def test_epsilon_is_checked_before_anything_is_opened() -> None:
    with pytest.raises(ParameterError):
        audit_source("no such file.pth", epsilon=2)
    with pytest.raises(SourceError):
        audit_source("no such file.pth")


def test_norms_that_differ_by_more_than_a_number_can_say_are_reported() -> None:
    np.save("far.npy", np.array([[1e-300, 0], [1e300, 0], [0, 1]]))
    (audit,) = audit_source("far.npy", sweep=False, nearest=False)
    assert audit.redundancy_factors.tolist() == [2, 1]
    norms = json.loads(audit.to_json())["heads"][0]["norms"]
    assert (norms["min"], norms["max"]) == (1e-300, 1e300)
    assert norms["max_spread_in_group"] > 1e308


def test_heads_that_were_read_are_audited_without_reading_them_again() -> None:
    resolved = resolve_source("dino.pth")
    heads = resolved.load(resolved.select(branch="teacher", head=None))
    (audit,) = audit_heads(resolved, heads, sweep=False, nearest=False)
    assert audit.prototypes is heads[0]
    (again,) = audit_source("dino.pth", sweep=False, nearest=False)
    np.testing.assert_array_equal(audit.groups, again.groups)
    assert json.loads(audit.to_json()) == json.loads(again.to_json())
