from __future__ import annotations

import copy
from typing import Any

import jsonschema
import pytest

from collapse_audit.mlcd import FeatureAccumulator
from collapse_audit.report.schema import error_document, report_schema
from collapse_audit.report_builder import features_report


@pytest.fixture(scope="module")
def validator() -> jsonschema.Draft202012Validator:
    schema = report_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


def test_a_report_and_an_error_document_are_valid(
    report: dict[str, Any], validator: jsonschema.Draft202012Validator
) -> None:
    validator.validate(report)
    validator.validate(error_document("SourceError", "x.pth: no such file.", ""))


def test_later_minor_versions_may_add_keys_anywhere(
    report: dict[str, Any], validator: jsonschema.Draft202012Validator
) -> None:
    report["schema_version"] = "1.7"
    head = report["heads"][0]
    parts = (report, report["source"], report["parameters"], head, head["unique"], head["mlcd"])
    for part in parts:
        part["added_later"] = {"anything": [1, 2]}
    head["unique"] |= {"bracket": [130, 137], "order_range": None, "definition_independent": False}
    validator.validate(report)


REQUIRED = {
    (): ["schema", "schema_version", "tool", "source", "parameters", "heads"],
    ("source",): ["spec", "id", "family", "sha256"],
    ("parameters",): ["epsilon", "rule", "certified"],
    ("heads", 0): [
        *("name", "branch", "tensor_keys", "k", "d", "dtype", "unique", "unique_fraction"),
        *("redundancy_factors", "sweep", "nearest_cosine", "published", "mlcd"),
    ],
    ("heads", 0, "unique"): ["greedy", "components", "isolated"],
    ("heads", 0, "redundancy_factors"): [
        *("max", "mean", "gini", "effective_number", "top", "histogram")
    ],
    ("heads", 0, "sweep", 0): ["epsilon", "greedy", "components", "isolated"],
    ("heads", 0, "nearest_cosine"): ["min", "q01", "q05", "median", "q95", "q99", "max"],
    ("heads", 0, "published"): ["unique", "source"],
    ("heads", 0, "mlcd"): [
        *("n", "branch", "temperature", "centre", "mean_entropy", "mutual_information"),
        *("k", "m", "usage"),
    ],
    ("heads", 0, "mlcd", "m"): [
        *("entropy", "perplexity", "kl_to_prior", "kl_from_prior", "js", "tv")
    ],
}


@pytest.mark.parametrize(
    ("path", "key"), [(path, key) for path, keys in REQUIRED.items() for key in keys]
)
def test_every_key_of_the_contract_is_required(
    report: dict[str, Any],
    validator: jsonschema.Draft202012Validator,
    path: tuple[str | int, ...],
    key: str,
) -> None:
    part: Any = report
    for step in path:
        part = part[step]
    del part[key]
    assert not validator.is_valid(report)


def test_the_features_of_a_source_without_prototypes_are_valid(
    report: dict[str, Any], validator: jsonschema.Draft202012Validator
) -> None:
    spread = FeatureAccumulator().update([[1.0, 2.0]]).result()  # a single one: undefined numbers
    source = report["source"]
    document = features_report(source, "SimDINO trains without prototypes.", {"backbone": spread})
    validator.validate(document)
    for name in spread.to_dict():
        changed = copy.deepcopy(document)
        del changed["features"]["backbone"][name]
        assert not validator.is_valid(changed)
    assert not validator.is_valid({**document, "features": {}})


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("schema",), "something-else"),
        (("schema_version",), "2.0"),
        (("source", "sha256"), "not a checksum"),
        (("parameters", "epsilon"), 0),
        (("parameters", "rule"), "single"),
        (("heads",), []),
        (("heads", 0, "k"), 1),
        (("heads", 0, "branch"), "ema"),
        (("heads", 0, "unique_fraction"), 1.5),
        (("heads", 0, "unique", "greedy"), 0),
        (("heads", 0, "unique", "greedy"), 1.5),
        (("heads", 0, "redundancy_factors", "histogram"), [[1, 2, 3]]),
        (("heads", 0, "redundancy_factors", "top"), [1] * 21),
        (("heads", 0, "mlcd"), "none"),
        (("heads", 0, "mlcd", "n"), 0),
        (("heads", 0, "mlcd", "centre"), "guess"),
        (("heads", 0, "mlcd", "k"), None),
        (("heads", 0, "mlcd", "features"), {"backbone": {"n": 3}}),
        (("heads", 0, "mlcd", "m", "tv"), 1.5),
        (("heads", 0, "mlcd", "usage", "k", "used"), 0),
    ],
)
def test_values_that_cannot_be_are_refused(
    report: dict[str, Any],
    validator: jsonschema.Draft202012Validator,
    path: tuple[str | int, ...],
    value: object,
) -> None:
    changed = copy.deepcopy(report)
    part: Any = changed
    for step in path[:-1]:
        part = part[step]
    part[path[-1]] = value
    assert validator.is_valid(report)
    assert not validator.is_valid(changed)
