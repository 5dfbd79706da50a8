"""The head of the demo: what it is, where it comes from, and what a reader is told about it."""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path

import pytest

from collapse_audit.examples import embedded_head
from collapse_audit.head_audit import audit_prototypes
from collapse_audit.sources import load_prototypes


@pytest.fixture(scope="module")
def card() -> str:
    """The provenance card, one line."""
    return " ".join(embedded_head().with_name("README.md").read_text(encoding="utf-8").split())


def test_the_embedded_head_is_the_trained_baseline_of_the_shipped_heads() -> None:
    path = embedded_head()
    assert path.name == "digits_baseline.safetensors"
    assert path.stat().st_size < 1_000_000
    assert path.stat().st_mode & 0o444 == 0o444  # safetensors writes files for the owner only


def test_the_card_names_every_shipped_head_by_its_checksum(card: str) -> None:
    heads: list[Path] = sorted(embedded_head().parent.glob("*.safetensors"))
    assert [head.stem for head in heads] == ["digits_baseline", "digits_koleo_proto"]
    for head in heads:
        assert sha256(head.read_bytes()).hexdigest() in card
        assert f"{head.stat().st_size:,} bytes" in card


def test_the_embedded_head_says_in_itself_where_it_comes_from(card: str) -> None:
    from safetensors import safe_open

    with safe_open(embedded_head(), framework="np") as stream:
        metadata = stream.metadata()
        keys = set(stream.keys())
    assert {"teacher.head.last_layer.weight_g", "teacher.head.last_layer.weight_v"} < keys
    config = json.loads(metadata["config"])
    assert (config["data"], config["regulariser"], config["seed"]) == ("digits", "none", 0)
    assert f"--k {config['k']} --regulariser none --seed 0" in card


def test_the_embedded_head_collapsed_and_its_count_depends_on_the_rule(card: str) -> None:
    audit = audit_prototypes(load_prototypes(embedded_head()), sweep=False, nearest=False)
    bracket = audit.redundancy.bracket
    assert f"| unique prototypes M (epsilon 0.025) | {audit.num_unique} |" in card
    assert bracket.low < audit.num_unique < bracket.high < 0.3 * 512
    assert f"{bracket.low} to {bracket.high}" in card
