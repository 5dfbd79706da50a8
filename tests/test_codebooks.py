"""Codebooks: their names, rows and usage, and the one row for all of them."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from collapse_audit import PrototypeError, Prototypes, audit, load_heads, load_prototypes
from collapse_audit.cli import main
from collapse_audit.errors import ParameterError
from collapse_audit.head_audit import audit_prototypes, build_report
from collapse_audit.report.schema import report_schema
from collapse_audit.sources import resolve_source
from collapse_audit.stored_usage import measure_stored_usage
from tests.dictionary_layouts import CODEBOOKS
from tests.planted import rows

K, D = 24, 8
SEED = torch.Generator().manual_seed(0)


def codes(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=SEED)


def saved(folder: Path, **state: torch.Tensor) -> Path:
    """A codebook as EnCodec writes it."""
    tensors = {f"vq.layers.0._codebook.{name}": tensor for name, tensor in state.items()}
    torch.save(tensors, folder / "codec.pth")
    return folder / "codec.pth"


# --- names and rows -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        ("lucidrains_vq", ["codebook"]),
        ("lucidrains_stack", ["vq.0", "vq.1", "vq.2"]),
        ("lucidrains_residual", [f"layers.{i}" for i in range(11)]),
        ("lucidrains_grouped", [f"rvqs.{i}.layers.{j}" for i in (0, 1) for j in (0, 1)]),
        ("encodec_transformers", [f"layers.{i}" for i in range(12)]),
        (
            "mimi_original",
            ["rvq_first.vq.layers.0", *(f"rvq_rest.vq.layers.{i}" for i in range(3))],
        ),
        ("dac", [f"quantizers.{i}" for i in range(9)]),
        ("llamagen", ["quantize"]),
        ("wav2vec_fairseq", ["quantizer.0", "quantizer.1"]),
        ("fairseq_kmeans", ["vector_quantizer.0", "vector_quantizer.1"]),
        ("vq_vae_2", ["quantize_t", "quantize_b"]),
    ],
)
def test_codebooks_have_short_names_in_the_order_of_their_numbers(
    layout: str, names: list[str], tmp_path: Path
) -> None:
    # safetensors sorts its keys: layers.10 comes before layers.2
    assert [head.name for head in resolve_source(CODEBOOKS[layout].write(tmp_path)).heads] == names


def test_a_shared_codebook_is_one_head_with_the_other_key_as_alias(tmp_path: Path) -> None:
    (head,) = resolve_source(CODEBOOKS["lucidrains_shared"].write(tmp_path)).heads
    assert head.aliases == ("layers.1._codebook.embed",)


@pytest.mark.parametrize("layout", ["wav2vec_fairseq", "fairseq_kmeans", "lucidrains_stack"])
def test_each_group_of_a_stack_has_its_own_rows(layout: str, tmp_path: Path) -> None:
    counts = (12, 20, 30) if layout == "lucidrains_stack" else (20, 30)
    k = 60 if layout == "lucidrains_stack" else 50
    heads = load_heads(CODEBOOKS[layout].write(tmp_path))
    for m, head in zip(counts, heads, strict=True):
        np.testing.assert_array_equal(head.rows, rows(m, k).numpy())


def test_what_is_looked_up_is_embed_and_not_its_running_average(tmp_path: Path) -> None:
    embed = codes(K, D)
    path = saved(tmp_path, embed=embed, embed_avg=codes(K, D), cluster_size=torch.ones(K))
    head = load_prototypes(path)
    np.testing.assert_array_equal(head.rows, embed.numpy())
    assert any("embed, as the model looks them up, and not embed_avg" in n for n in head.notes)


@pytest.mark.parametrize("total", ["embed_sum", "embedding_sum", "embed_avg"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_sums_are_divided_by_the_usage_as_mimi_does(
    total: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    usage = torch.rand(K, generator=SEED) * 10
    usage[3], usage[5] = 0, 1e-7
    sums = codes(K, D).to(dtype)
    head = load_prototypes(saved(tmp_path, **{total: sums, "cluster_usage": usage}))
    expected = sums.float() / usage.clamp(min=1e-5)[:, None]  # MimiEuclideanCodebook.embed
    np.testing.assert_array_equal(head.rows, expected.numpy())
    assert head.usage is not None
    np.testing.assert_array_equal(head.usage, usage.double().numpy())
    assert [key.rpartition(".")[2] for key in head.tensor_keys] == [total, "cluster_usage"]
    assert {key for key, _ in head.tensor_sha256} == set(head.tensor_keys)


def test_sums_without_a_usage_are_said_to_be_sums(tmp_path: Path) -> None:
    head = load_prototypes(saved(tmp_path, embed_sum=codes(K, D)))
    assert any("no usage beside the sums" in note for note in head.notes)


def test_the_usage_of_a_stack_goes_to_its_heads(tmp_path: Path) -> None:
    usage = torch.arange(3.0 * K).reshape(3, K)
    heads = load_heads(saved(tmp_path, embed=codes(3, K, D), cluster_size=usage))
    for head, expected in zip(heads, usage.double(), strict=True):
        assert head.usage is not None
        np.testing.assert_array_equal(head.usage, expected.numpy())


def test_a_usage_of_whole_numbers_is_one(tmp_path: Path) -> None:
    head = load_prototypes(saved(tmp_path, embed=codes(K, D), cluster_size=torch.arange(K)))
    assert head.usage is not None
    assert head.usage.tolist() == list(range(K))


def test_an_ema_of_a_tokenizer_is_its_teacher(tmp_path: Path) -> None:
    state = {"quantize.embedding.weight": codes(K, D)}
    average = {"quantize.embedding.weight": codes(K, D)}
    torch.save({"model": state, "ema": average}, tmp_path / "tokenizer.pt")
    (head,) = load_heads(tmp_path / "tokenizer.pt")
    np.testing.assert_array_equal(head.rows, average["quantize.embedding.weight"].numpy())
    assert (head.name, head.branch) == ("quantize", "teacher")


def test_prototypes_come_before_a_codebook_in_the_same_file(tmp_path: Path) -> None:
    tensors = {"head.last_layer.weight": codes(K, D), "quantize.embedding.weight": codes(K, D)}
    torch.save(tensors, tmp_path / "both.pth")
    assert [head.name for head in resolve_source(tmp_path / "both.pth").heads] == ["head"]


# --- usage that cannot be -------------------------------------------------------------------------


def bad(value: float) -> torch.Tensor:
    usage = torch.ones(K)
    usage[7] = value
    return usage


@pytest.mark.parametrize("total", ["embed", "embed_sum"])
@pytest.mark.parametrize(
    ("usage", "message"),
    [
        (torch.ones(K - 1), f"cluster_size has {K - 1} values for {K} codes"),
        (torch.ones(D), f"cluster_size has {D} values for {K} codes"),
        (torch.ones(2, K), f"cluster_size has {2 * K} values for {K} codes"),
        (bad(math.nan), f"1 of {K} prototypes have a NaN or infinite usage (first at index 7)"),
        (bad(math.inf), f"1 of {K} prototypes have a NaN or infinite usage"),
        (bad(-1.0), f"1 of {K} prototypes have a negative usage (first at index 7)"),
    ],
)
def test_a_usage_that_cannot_be_is_one_line_and_exit_2(
    total: str,
    usage: torch.Tensor,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = saved(tmp_path, **{total: codes(K, D), "cluster_size": usage})
    assert main(["audit", str(path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: codec.pth: layers.0: ")
    assert message in line
    with pytest.raises(PrototypeError, match=r"layers\.0"):
        audit(path)


def test_a_usage_of_nothing_is_said_and_not_reported(tmp_path: Path) -> None:
    found = audit(saved(tmp_path, embed=codes(K, D), cluster_size=torch.zeros(K)))
    assert found.stored_usage() is None
    assert found.head_report()["stored_usage"] is None
    assert any("zero throughout" in note for note in found.prototypes.notes)


def test_a_usage_in_memory_is_checked_too() -> None:
    weight = codes(K, D)
    assert Prototypes.from_weight(weight).usage is None
    with pytest.raises(PrototypeError, match="24 rows but 3 values of usage"):
        Prototypes.from_weight(weight, usage=[1, 2, 3])


# --- what a usage says ----------------------------------------------------------------------------


def by_definition(usage: list[float]) -> dict[str, float]:
    """Perplexity and dead codes in plain loops."""
    total = sum(usage)
    nats = -sum(u / total * math.log(u / total) for u in usage if u)
    dead = sum(u < 0.1 * total / len(usage) for u in usage)
    counts = {"used": len(usage) - dead, "dead": dead, "unused": sum(u == 0 for u in usage)}
    return {"perplexity": pytest.approx(math.exp(nats)), **counts}


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30).filter(any))
def test_a_usage_is_described_by_its_definition(usage: list[int]) -> None:
    found = measure_stored_usage(usage).to_dict()
    assert found == by_definition([float(u) for u in usage])
    assert measure_stored_usage([u * 2.0**-900 for u in usage]).to_dict() == found


def test_the_largest_numbers_do_not_overflow() -> None:
    assert measure_stored_usage([1e308] * 10).perplexity == pytest.approx(10)


@pytest.mark.parametrize("usage", [[], [0.0, 0.0], [1, -1], [1, math.nan], [1, math.inf]])
def test_no_usage_is_an_error(usage: list[float]) -> None:
    with pytest.raises(ParameterError, match="usage must be finite numbers of at least 0"):
        measure_stored_usage(usage)


def test_copies_share_their_usage_over_unique_prototypes() -> None:
    # M = 4 of 8; both the perplexity over K and that over M in closed form
    weight = np.repeat(np.eye(4, 6), 2, axis=0)
    found = audit_prototypes(Prototypes.from_weight(weight, usage=[1, 1, 2, 2, 1, 3, 4, 0]))
    usage, unique = found.stored_usage(), found.stored_usage("m")
    assert usage is not None
    assert unique is not None
    assert unique.to_dict() == by_definition([2, 4, 4, 4])
    assert usage.to_dict() == by_definition([1, 1, 2, 2, 1, 3, 4, 0])
    of_unique = found.unique_prototypes.usage
    assert of_unique is not None
    assert sorted(of_unique.tolist()) == [2, 4, 4, 4]
    assert found.head_report()["stored_usage"] == {
        "dead_below": 0.1, "k": usage.to_dict(), "m": unique.to_dict(),
    }  # fmt: skip


# --- reports --------------------------------------------------------------------------------------


@pytest.fixture
def codec(tmp_path: Path) -> Path:
    """Three residual layers: M = 12, 20, 30 of 40; 0, 4 and 8 dead codes, the others used alike."""
    state = {}
    for i, m in enumerate((12, 20, 30)):
        usage = torch.full((40,), 2.0)
        usage[: 4 * i] = 1e-30
        state[f"quantizer.vq.layers.{i}._codebook.embed"] = rows(m, 40)
        state[f"quantizer.vq.layers.{i}._codebook.cluster_size"] = usage
    torch.save(state, tmp_path / "codec.pth")
    return tmp_path / "codec.pth"


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["audit", *arguments]) == 0
    return capsys.readouterr().out


def test_a_report_of_several_heads_has_a_summary(
    codec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report: dict[str, Any] = json.loads(printed(capsys, str(codec), "--json"))
    jsonschema.validate(report, report_schema())
    assert report["summary"] == {
        "heads": 3,
        "k": 120,
        "m": 62,
        "unique_fraction": 62 / 120,
        "unique_fraction_min": 12 / 40,
        "unique_fraction_median": 20 / 40,
        "least_unique": "layers.0",
        "stored_usage": {
            "heads": 3,
            "perplexity_min": pytest.approx(32),
            "perplexity_median": pytest.approx(36),
            "dead": 12,
            "bits": pytest.approx(math.log2(40 * 36 * 32)),
            "bits_of_k": pytest.approx(3 * math.log2(40)),
        },
    }


def test_a_single_head_and_one_chosen_of_several_have_none(
    codec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "summary" not in json.loads(printed(capsys, str(codec), "--json", "--head", "layers.1"))


@pytest.mark.parametrize("width", ["72", "100"])
def test_the_table_has_a_line_for_each_head_and_one_for_all(
    width: str, codec: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", width)
    out = printed(capsys, str(codec))
    lines = [line.split() for line in out.splitlines()]
    assert ["layers.0", "40", "12", "30.0", "%", "40.0", "0"] in lines
    assert ["layers.2", "40", "30", "75.0", "%", "32.0", "8"] in lines
    assert ["all", "3", "120", "62", "51.7", "%", "12"] in lines
    assert "Unique prototypes: 30.0 % in the worst head (layers.0)" in " ".join(out.split())
    assert "perplexity 36.0 of 40; 36 used, 4 dead" in out
    assert max(map(len, out.splitlines())) <= int(width)


@pytest.mark.parametrize(
    ("form", "cells"),
    [
        ("markdown", "| all 3 | 120 | 62 | 51.7 % |  | 12 |"),
        ("html", '<tr><th scope="row">all 3</th><td>120</td><td>62</td><td>51.7 %</td>'),
    ],
)
def test_the_other_formats_have_them_too(
    form: str, cells: str, codec: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cells in printed(capsys, str(codec), "--format", form)


def test_csv_has_the_usage_of_each_head(codec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = csv.DictReader(io.StringIO(printed(capsys, str(codec), "--format", "csv")))
    assert [(row["head"], row["stored_usage_k_dead"]) for row in table] == [
        ("layers.0", "0"), ("layers.1", "4"), ("layers.2", "8"),
    ]  # fmt: skip


def test_heads_without_usage_have_a_summary_without() -> None:
    one = audit_prototypes(Prototypes.from_weight(rows(12).numpy(), name="a" * 300))
    report = build_report([one, replace(one)])
    assert report["summary"]["stored_usage"] is None
    assert "perplexity" not in str(one)
    jsonschema.validate(json.loads(json.dumps(report)), report_schema())


def test_a_gate_can_watch_the_dead_codes(
    codec: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    limit = ["--fail-on", "stored_usage.k.dead>4"]
    assert main(["check", str(codec), "--head", "layers.1", *limit]) == 0
    assert main(["check", str(codec), "--head", "layers.2", *limit]) == 1
    torch.save({"head.last_layer.weight": rows(12)}, tmp_path / "head.pth")
    capsys.readouterr()
    assert main(["check", str(tmp_path / "head.pth"), *limit]) == 2
    assert "files of codebooks that count it" in capsys.readouterr().err


def test_info_shows_codebooks(codec: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(codec)]) == 0
    out = capsys.readouterr().out
    assert "layers.2*" in out
    assert "quantizer.vq.layers.2._codebook.embed, " in out
