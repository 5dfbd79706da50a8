"""Every document that is printed: what is built has the types, and the types have the schema."""

from __future__ import annotations

import copy
import functools
import json
import operator
from dataclasses import asdict, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, NotRequired, Union, get_args, get_origin, get_type_hints
from typing import is_typeddict as is_document

import jsonschema
import numpy as np
import pytest
from safetensors.numpy import save_file

from collapse_audit import MLCDAccumulator, Prototypes, Published, Source, audit_prototypes
from collapse_audit.cli import main
from collapse_audit.clusters import estimate_clusters
from collapse_audit.gate import check, compare
from collapse_audit.head_audit import CollapseAudit, build_report
from collapse_audit.history import audit_history
from collapse_audit.report.clusters_document import ClustersDocument
from collapse_audit.report.csv_text import to_csv
from collapse_audit.report.documents import (
    ComparisonDocument,
    ErrorDocument,
    HistoryDocument,
    ReportDocument,
    VerdictDocument,
)
from collapse_audit.report.gallery_documents import GalleryDocument
from collapse_audit.report.html import to_html, to_html_fragment
from collapse_audit.report.info_documents import InfoDocument
from collapse_audit.report.json_text import to_json
from collapse_audit.report.markdown import to_markdown
from collapse_audit.report.schema import (
    KINDS,
    document_schema,
    error_document,
    report_schema,
)
from collapse_audit.report.table import to_table

NOTES = ("transposed from 64 x 6", "the student stands in for the <teacher> of `a|b`.")
SIMPLE = {str: "string", int: "integer", float: "number", bool: "boolean", NoneType: "null"}


def schema_of(kind: Any) -> dict[str, Any]:
    """The JSON Schema that a type says, without a key that it does not name."""
    if is_document(kind):
        hints = get_type_hints(kind, include_extras=True)
        optional = {key for key, hint in hints.items() if get_origin(hint) is NotRequired}
        return {
            "type": "object",
            "properties": {key: schema_of(hint) for key, hint in hints.items()},
            "required": sorted(set(hints) - optional),
            "additionalProperties": False,
        }
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is NotRequired:
        return schema_of(arguments[0])
    if origin in (Union, UnionType):
        return {"anyOf": [schema_of(argument) for argument in arguments]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is list:
        return {"type": "array", "items": schema_of(arguments[0])}
    if origin is dict:
        return {"type": "object", "additionalProperties": schema_of(arguments[1])}
    return {"type": SIMPLE[kind]}


def validate(document: object, kind: type) -> None:
    plain = json.loads(to_json(document))  # type: ignore[arg-type]
    assert plain == document
    jsonschema.validate(plain, schema_of(kind))


@pytest.fixture(scope="module")
def audit() -> CollapseAudit:
    """A head with everything that a report can hold: MLCD with labels, notes, checksums, counts."""
    rng = np.random.default_rng(0)
    rows = np.eye(6)[[0, 0, 0, 1, 2, 3, 4, 5]] + rng.normal(0, 1e-3, (8, 6))
    prototypes = replace(
        Prototypes.from_weight(rows.astype(np.float32), branch="teacher", tensor_keys=("t/w",)),
        notes=NOTES,
        tensor_sha256=(("t/w", 64 * "a"), ("t/g", 64 * "b")),
    )
    published = (Published(6, "A paper"), Published(5, "Another"))
    source = Source("x.pth", id="x", family="dino", sha256=64 * "c", published=published)
    found = audit_prototypes(prototypes, source=source)
    mlcd = MLCDAccumulator(prototypes, temperature=0.1, groups=found.groups)
    mlcd.update(rng.normal(size=(50, 6)), labels=np.arange(50) % 3)
    return found.with_mlcd(mlcd.result())


@pytest.fixture(scope="module")
def bare() -> CollapseAudit:
    """A head with the least."""
    return audit_prototypes(Prototypes.from_weight(np.eye(8, 6) + 1), sweep=False, nearest=False)


def test_reports_have_the_types_and_obey_the_shipped_schema(
    audit: CollapseAudit, bare: CollapseAudit
) -> None:
    for audits in ([audit], [bare], [audit, replace(bare, source=audit.source)]):
        report = build_report(audits)
        validate(report, ReportDocument)
        jsonschema.validate(report, report_schema())


def test_the_mlcd_of_a_report_is_the_field_of_the_audit(
    audit: CollapseAudit, bare: CollapseAudit
) -> None:
    assert audit.mlcd is not None
    assert audit.diversity is not None
    told = {**audit.mlcd.to_dict(), "diversity": asdict(audit.diversity)}
    assert audit.to_dict()["heads"][0]["mlcd"] == told
    assert bare.mlcd is None
    assert bare.to_dict()["heads"][0]["mlcd"] is None
    assert replace(audit, mlcd=None).to_dict()["heads"][0] == {**audit.head_report(), "mlcd": None}
    assert "MLCD of 50 samples" in str(audit)


def test_a_head_says_what_is_known_of_its_tensors(
    audit: CollapseAudit, bare: CollapseAudit
) -> None:
    head, least = audit.head_report(), bare.head_report()
    assert head["tensor_sha256"] == {"t/w": 64 * "a", "t/g": 64 * "b"}
    assert head["notes"] == list(NOTES)
    assert (least["tensor_sha256"], least["notes"]) == ({}, [])


def test_the_schema_refuses_what_is_no_checksum_and_no_note(audit: CollapseAudit) -> None:
    for key, value in (("tensor_sha256", {"t/w": "abc"}), ("notes", [1]), ("notes", "one")):
        report = copy.deepcopy(audit.to_dict())
        report["heads"][0][key] = value  # type: ignore[literal-required]
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(report, report_schema())


def test_a_saved_report_without_the_later_keys_has_the_types_too(repository: Path) -> None:
    text = (repository / "tests" / "data" / "report.json").read_text(encoding="utf-8")
    validate(json.loads(text), ReportDocument)


def test_notes_are_shown_in_every_format_and_nothing_where_there_are_none(
    audit: CollapseAudit, bare: CollapseAudit
) -> None:
    report, least = audit.to_dict(), bare.to_dict()
    said = "Notes: transposed from 64 x 6. the student stands in for the <teacher> of `a|b`."
    assert said in " ".join(to_table(report).split())
    escaped = said.replace("<", r"\<").replace(">", r"\>").replace("`", r"\`").replace("|", r"\|")
    assert f"\n{escaped}\n" in to_markdown(report)
    for write in (to_html, to_html_fragment):
        assert said.replace("<", "&lt;").replace(">", "&gt;") in write(report)
    assert said.removeprefix("Notes: ") in to_csv(report)
    for writer in (to_table, to_markdown, to_html_fragment):
        assert "notes" not in writer(least).lower()
    assert "Notes:" not in to_html(least)


def test_notes_cannot_move_the_cursor_or_leave_their_line(audit: CollapseAudit) -> None:
    report = copy.deepcopy(audit.to_dict())
    report["heads"][0]["notes"] = ["a\x1b[31m\nb " + 300 * "x"]
    table = to_table(report, width=72)
    assert all(c.isprintable() or c == "\n" for c in table)
    assert max(map(len, table.splitlines())) <= 72
    assert "a\\x1b[31m\\nb" in table


def test_errors_have_the_type_and_obey_the_shipped_schema() -> None:
    document = error_document("SourceError", "x.pth: no such file.", "Look again.")
    validate(document, ErrorDocument)
    jsonschema.validate(document, report_schema())


@pytest.mark.parametrize("kind", KINDS)
def test_the_shipped_schemas_are_schemas(kind: str) -> None:
    schema = document_schema(kind)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$id"] == f"urn:collapse-audit:{kind}:1"
    for wrong in ({}, {"schema": f"collapse-audit/{kind}"}, []):
        assert not jsonschema.Draft202012Validator(schema).is_valid(wrong)


def test_verdicts_have_the_type_and_obey_the_shipped_schema(
    audit: CollapseAudit, bare: CollapseAudit
) -> None:
    for verdict in (
        check(audit, audit, ["M:-5%", "gini<0.1", "mlcd.mutual_information:-0"]),
        check(bare, None, ["M<9", "M:-1"], skip_changes=True),
    ):
        validate(verdict.to_dict(), VerdictDocument)
        jsonschema.validate(verdict.to_dict(), document_schema("verdict"))


def test_comparisons_have_the_type_and_obey_the_shipped_schema(
    audit: CollapseAudit, bare: CollapseAudit
) -> None:
    split = audit_prototypes(Prototypes.from_weight(np.eye(8)))
    for sides in ((audit, split), (split, audit, bare), (audit, audit.to_dict())):
        document = compare(*sides).to_dict()
        validate(document, ComparisonDocument)
        jsonschema.validate(document, document_schema("comparison"))
    assert any(head["regroupings"] == [None] for head in document["heads"])
    document["heads"][0]["metrics"][0]["judgements"] = ["good"]  # type: ignore[list-item]
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, document_schema("comparison"))


def test_histories_have_the_type_and_obey_the_shipped_schema(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    for epoch in range(3):
        rows[1 : 4 * epoch] = rows[0]
        weights = {"teacher.head.last_layer.weight": rows, "teacher.x_head.last_layer.weight": rows}
        save_file(weights, tmp_path / f"epoch{epoch}.safetensors")
    (tmp_path / "epoch7.safetensors").write_bytes(b"damaged")
    save_file(weights, tmp_path / "last.safetensors")
    document = audit_history(tmp_path, reuse=False).to_dict()
    assert len(document["heads"]) == 2
    assert document["heads"][0]["onset"]
    assert document["heads"][0]["merges"]
    assert document["problems"][0]["file"] == "epoch7.safetensors"
    assert [p["number"] for p in document["heads"][0]["points"]] == [0, 1, 2, None]
    validate(document, HistoryDocument)
    jsonschema.validate(document, document_schema("history"))
    document["heads"][0]["points"][0]["head"]["k"] = 1  # of a report, too few
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, document_schema("history"))


def test_estimates_of_clusters_have_the_type_and_obey_the_shipped_schema() -> None:
    rng = np.random.default_rng(0)
    for data in (
        rng.normal(size=(80, 3)),
        rng.normal(size=(400, 3)) + 40 * np.eye(3)[[0, 1] * 200],
    ):
        document = json.loads(json.dumps(estimate_clusters(data).to_dict()))
        jsonschema.validate(document, schema_of(ClustersDocument))
        jsonschema.validate(document, document_schema("clusters"))


def test_descriptions_of_files_have_the_type_and_obey_the_shipped_schema(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = np.random.default_rng(0).normal(size=(16, 4)).astype(np.float32)
    save_file({"teacher.head.last_layer.weight": rows}, tmp_path / "head.safetensors")
    save_file({"blocks.0.weight": rows}, tmp_path / "backbone.safetensors")
    for name in ("head", "backbone"):
        assert main(["info", str(tmp_path / f"{name}.safetensors"), "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        for schema in (schema_of(InfoDocument), document_schema("info")):
            jsonschema.validate(document, schema)
    document["container"] = "tar"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, document_schema("info"))


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("report", ReportDocument), ("report", ErrorDocument), ("verdict", VerdictDocument),
        ("comparison", ComparisonDocument), ("history", HistoryDocument), ("info", InfoDocument),
        ("gallery", GalleryDocument), ("clusters", ClustersDocument),
    ],
)  # fmt: skip
def test_a_shipped_schema_names_the_keys_of_the_type_and_no_others(
    name: str, document: type
) -> None:
    shipped = document_schema(name)
    whole = shipped
    if name == "report":
        whole = shipped["$defs"]["error" if document is ErrorDocument else name]

    def compared(ours: dict[str, Any], theirs: dict[str, Any], where: str) -> None:
        """Walk both; where ours has numbers by name only, theirs lists the names."""
        if "$ref" in theirs:
            path = theirs["$ref"].removeprefix("#/").split("/")
            theirs = functools.reduce(operator.getitem, path, shipped)
        for schema in ours.get("anyOf", [ours]):
            for option in theirs.get("oneOf", [theirs]):
                if "$ref" in option:
                    compared(schema, option, where)
                elif schema.get("properties") and option.get("properties"):
                    assert set(schema["properties"]) == set(option["properties"]), where
                    assert set(option["required"]) <= set(schema["required"]), where
                    for key, inner in schema["properties"].items():
                        compared(inner, option["properties"][key], f"{where}.{key}")
                elif schema.get("items") and option.get("items"):
                    compared(schema["items"], option["items"], f"{where}[]")

    compared(schema_of(document), whole, name)
