"""Manifests of two rows: what is inherited, and which files are refused."""

import copy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from collapse_audit.errors import ManifestError, SourceError
from collapse_audit.manifest import load_manifest
from collapse_audit.manifest.entries import Manifest
from collapse_audit.manifest.recipes import Recipe

REPOSITORY = Path(__file__).resolve().parents[1]
SHIPPED = REPOSITORY / "checkpoints_manifest.yaml"

Document = dict[str, Any]


def a_document() -> Document:
    """A valid manifest of two rows; each test spoils it in one place."""
    return {
        "schema": 1,
        "preprocessing": {
            "plain": {
                "resize": 256,
                "crop": 224,
                "interpolation": "bicubic",
                "mean": [0.5, 0.5, 0.5],
                "std": [0.2, 0.2, 0.2],
            }
        },
        "families": {
            "dino": {
                "evidence": "B",
                "source": "README",
                "licence": "MIT",
                "k": 64,
                "d": 8,
                "note": "from the family",
                "recipe": {
                    "repository": "some/where@0123456",
                    "teacher_temperature": {"value": 0.07, "source": "main.py:71"},
                    "preprocessing": {"value": "plain", "source": "eval.py:3-5"},
                },
            }
        },
        "checkpoints": [
            {"id": "first", "family": "dino", "url": "https://example.org/a/checkpoint.pth"},
            {
                "id": "second",
                "family": "dino",
                "url": "https://example.org/b/checkpoint.pth",
                "k": 32,
                "note": None,
                "published": [{"unique": 5, "source": "a paper"}],
                "recipe": {"teacher_temperature": {"value": None, "source": "its args are lost"}},
            },
        ],
    }


@pytest.fixture
def load(tmp_path: Path) -> Callable[[Document], Manifest]:
    def load_document(document: Document) -> Manifest:
        path = tmp_path / "manifest.yaml"
        path.write_text(yaml.safe_dump(document), encoding="utf-8")
        return load_manifest(path)

    return load_document


@pytest.mark.parametrize("installed", [True, False])
def test_an_installed_package_reads_its_own_copy(tmp_path: Path, installed: bool) -> None:
    package = tmp_path / "collapse_audit"
    shutil.copytree(REPOSITORY / "collapse_audit", package)
    if installed:
        (package / SHIPPED.name).write_text(yaml.safe_dump(a_document()), encoding="utf-8")
    code = "from collapse_audit.manifest import load_manifest; print(len(load_manifest().entries))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={},
        capture_output=True,
        text=True,
        check=False,
    )

    if installed:
        assert (done.stdout.strip(), done.stderr) == ("2", "")
    else:
        assert "checkpoints_manifest.yaml: cannot be read" in done.stderr


def test_a_row_inherits_what_it_does_not_set_and_null_takes_it_back(
    load: Callable[[Document], Manifest],
) -> None:
    first, second = load(a_document()).entries

    assert (first.k, first.d, first.note) == (64, 8, "from the family")
    assert (second.k, second.d, second.note) == (32, 8, None)
    assert second.published[0].unique == 5


def test_a_row_states_what_its_recipe_has_other_than_the_family(
    load: Callable[[Document], Manifest],
) -> None:
    manifest = load(a_document())
    first, second = (entry.recipe for entry in manifest.entries)

    assert first == manifest.recipe("dino")
    assert (first.teacher_temperature, second.teacher_temperature) == (0.07, None)
    assert second.preprocessing == first.preprocessing == "plain"
    assert first.sources == {
        "teacher_temperature": "some/where@0123456 main.py:71",
        "preprocessing": "some/where@0123456 eval.py:3-5",
    }
    assert second.sources["teacher_temperature"] == "its args are lost"
    assert manifest.recipe(None) == manifest.recipe("never heard of") == Recipe()


def spoil(*path: str | int, value: object) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        target: Any = document
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = value

    return change


def drop(*path: str | int) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        target: Any = document
        for step in path[:-1]:
            target = target[step]
        del target[path[-1]]

    return change


ROW = ("checkpoints", 0)
SECOND = ("checkpoints", 1)
FAMILY = ("families", "dino")
RECIPE = (*FAMILY, "recipe")
TEMPERATURE = (*RECIPE, "teacher_temperature")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            spoil(*ROW, "kk", value=3),
            r"checkpoint 'first': no field is called 'kk'.*Did you mean k",
        ),
        (spoil(*ROW, "K", value=3), r"checkpoint 'first': no field is called 'K'.*Did you mean k"),
        (spoil(*ROW, "patchsize", value=4), r"'first': .*'patchsize'.*Did you mean patch_size"),
        (spoil(*ROW, "zzzzzz", value="x"), r"'first': .*'zzzzzz'.*Fields: id, family"),
        (spoil(*ROW, "original_name", value="x"), r"'first': no field is called 'original_name'"),
        (spoil(*ROW, "k", value="many"), r"'first': k is 'many', but must be a whole number.*null"),
        (spoil(*ROW, "k", value=0), r"'first': k is 0, but must be a whole number of at least 1"),
        (spoil(*ROW, "k", value=True), r"'first': k is True"),
        (spoil(*ROW, "k", value=1.5), r"'first': k is 1.5"),
        (spoil(*ROW, "k", value=[1, 2]), r"'first': k is \[1, 2\]"),
        (spoil(*ROW, "batch_norm", value=1), r"'first': batch_norm is 1, .*true or false"),
        (spoil(*TEMPERATURE, "value", value=0), r"teacher_temperature is 0, .*above 0"),
        (spoil(*TEMPERATURE, "value", value=float("nan")), r"teacher_temperature is nan"),
        (spoil(*TEMPERATURE, "value", value=float("inf")), r"teacher_temperature is inf"),
        (drop(*TEMPERATURE, "source"), r"'dino': recipe: teacher_temperature needs .* source"),
        (drop(*TEMPERATURE, "value"), r"'dino': recipe: teacher_temperature needs a value"),
        (spoil(*TEMPERATURE, value=0.07), r"teacher_temperature: 0.07 is not a mapping"),
        (spoil(*TEMPERATURE, "sauce", value="x"), r"no field is called 'sauce'.*Did you mean sour"),
        (spoil(*RECIPE, "temperature", value={}), r"'dino': recipe: no field is called 'temperat"),
        (spoil(*RECIPE, "sources", value={}), r"'dino': recipe: no field is called 'sources'"),
        (spoil(*RECIPE, "repository", value=3), r"'dino': recipe: repository is 3, .*be text"),
        (
            spoil(*RECIPE, "activation", value={"value": "tanh", "source": "x"}),
            r"activation is 'tanh', .*one of gelu, relu",
        ),
        (spoil(*ROW, "linear_layers", value=-1), r"linear_layers is -1, .*at least 0"),
        (spoil(*ROW, "note", value="  "), r"'first': note is '  ', but must be text or null"),
        (spoil(*ROW, "tensor_keys", value="a"), r"tensor_keys is 'a', .*list of texts"),
        (spoil(*ROW, "nested_k", value=[8, "x"]), r"nested_k is .*list of whole numbers"),
        (spoil(*ROW, "evidence", value="D"), r"evidence is 'D', .*one of A, B, C, N"),
        (spoil(*ROW, "evidence", value="N"), r"'first': evidence is 'N' and url is 'https"),
        (spoil(*ROW, "url", value=None), r"'first': evidence is 'B' and url is None"),
        (spoil(*ROW, "url", value="http://example.org/a"), r"'first': url is .*https://"),
        (spoil(*ROW, "url", value="https://example.org/a?sig=1"), r"url is .*without query"),
        (spoil(*ROW, "mirrors", value=["ftp://x"]), r"mirrors is .*https://"),
        (spoil(*ROW, "fetch", value="ftp"), r"fetch is 'ftp', .*one of http, manual"),
        (spoil(*ROW, "container", value="rar"), r"container is 'rar', .*one of zip, legacy"),
        (spoil(*ROW, "query_env", value="a b"), r"query_env is 'a b', .*environment variable"),
        (spoil(*ROW, "sha256", value="abc"), r"'first': sha256 is 'abc', .*64 .*hexadecimal"),
        (
            spoil(*RECIPE, "preprocessing", "value", value="plane"),
            r"family 'dino': preprocessing is 'plane'.*Profiles: plain",
        ),
        (
            spoil(*ROW, "recipe", value={"preprocessing": {"value": "plane", "source": "x"}}),
            r"'first': preprocessing is 'plane'.*Profiles: plain",
        ),
        (spoil(*ROW, "family", value="dinoo"), r"'first': family is 'dinoo'.*Did you mean dino"),
        (spoil(*ROW, "family", value=["dino"]), r"'first': family is \['dino'\]"),
        (drop(*ROW, "family"), r"'first': family is None"),
        (spoil(*SECOND, "id", value="first"), r"'first': id is taken by another row"),
        (spoil(*ROW, "id", value="list"), r"'list': id is the name of a command"),
        (spoil(*ROW, "id", value="Bad id"), r"row 1: id is 'Bad id', .*lower-case"),
        (drop(*ROW, "id"), r"row 1: id is missing"),
        (drop(*FAMILY, "licence"), r"'first': licence is missing"),
        (spoil("checkpoints", 1, value="text"), r"row 2: 'text' is not a mapping"),
        (spoil(*SECOND, "published", value=7), r"'second': published: 7 is not a mapping"),
        (
            spoil(*SECOND, "published", value=[{"unique": 5}]),
            r"'second': published: source is miss",
        ),
        (
            spoil(*SECOND, "published", value=[{"unique": -5, "source": "s"}]),
            r"'second': published: unique is -5",
        ),
        (spoil(*SECOND, "k", value=None), r"'second': k is null; the note must say why"),
        (spoil(*SECOND, "d", value=None), r"'second': d is null; the note must say why"),
        (spoil(*FAMILY, "d", value="x"), r"family 'dino': d is 'x'"),
        (spoil(*FAMILY, "dd", value=1), r"family 'dino': no field is called 'dd'"),
        (
            spoil(*FAMILY, "url", value="https://a.b/c"),
            r"family 'dino': url is a fact about one row",
        ),
        (spoil("families", 3, value={}), r"family 3: the name must be text"),
        (spoil("families", value=[]), r"\[\] is not a mapping"),
        (spoil("preprocessing", "plain", "crop", value=-1), r"preprocessing 'plain': crop is -1"),
        (spoil("preprocessing", "plain", "mean", value=[1]), r"'plain': mean is .*three numbers"),
        (drop("preprocessing", "plain", "std"), r"preprocessing 'plain': std is missing"),
        (spoil("schema", value=2), r"schema is 2, not 1"),
        (
            spoil("checkpoint", value=[]),
            r"no field is called 'checkpoint'.*Did you mean checkpoints",
        ),
        (spoil("checkpoints", value={}), r"checkpoints is \{\}, not a list"),
    ],
)
def test_a_broken_manifest_is_refused_with_row_and_field(
    load: Callable[[Document], Manifest], change: Callable[[Document], None], message: str
) -> None:
    document = copy.deepcopy(a_document())
    change(document)

    with pytest.raises(ManifestError, match=message) as caught:
        load(document)
    assert str(caught.value).startswith("manifest.yaml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("checkpoints:\n  - id: one\n    k: 3\n    k: 4\n", r"line 4: k stands there twice"),
        ("schema: 1\nschema: 1\n", r"line 2: schema stands there twice"),
        ("a: [", r"m.yaml: not valid YAML: "),
        ("schema: 2024-13-45\n", r"m.yaml: not valid YAML: month must be in 1..12"),
        ("!!python/object/apply:os.getcwd []", r"m.yaml: not valid YAML: could not determine"),
        ("", r"m.yaml: None is not a mapping"),
        ("- 1", r"m.yaml: \[1\] is not a mapping"),
    ],
)
def test_a_file_that_is_no_manifest_is_refused_in_one_line(
    tmp_path: Path, text: str, message: str
) -> None:
    path = tmp_path / "m.yaml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(ManifestError, match=message) as caught:
        load_manifest(path)
    assert "\n" not in str(caught.value)


def test_a_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"none.yaml: cannot be read \(No such file"):
        load_manifest(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ManifestError, match=r"binary.yaml: not valid YAML: .*utf-8"):
        load_manifest(tmp_path / "binary.yaml")
