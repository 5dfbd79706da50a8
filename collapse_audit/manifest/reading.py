"""YAML file -> checked entries."""

import math
import re
import reprlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import MISSING, Field, fields, replace
from importlib import resources
from pathlib import Path
from types import MappingProxyType, NoneType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, get_args

from collapse_audit.errors import ManifestError
from collapse_audit.manifest.entries import (
    CheckpointEntry,
    Manifest,
    PreprocessingProfile,
    PublishedCount,
    base_name,
)
from collapse_audit.manifest.recipes import Recipe
from collapse_audit.settings import read_settings
from collapse_audit.words import did_you_mean

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    T = TypeVar("T", bound=DataclassInstance)
else:
    T = TypeVar("T")

FILE_NAME = "checkpoints_manifest.yaml"
# `collapse-audit SOURCE` takes an id where it also takes a command, so no id may be one of these.
COMMANDS = frozenset(
    {"audit", "mlcd", "compare", "check", "train", "list", "info", "download", "report"}
    | {"cache", "clusters", "demo", "doctor", "gallery", "history", "reproduce", "schema"}
)
# Facts about one file; a family cannot hand them down.
_ROW_ONLY = frozenset(
    {"id", "family", "url", "backbone_url", "mirrors", "sha256", "size", "expected_size_mb"}
    | {"published"}
)
_TOP_LEVEL = ("schema", "preprocessing", "families", "checkpoints")


class _Rule(NamedTuple):
    """What a value may be, in words and as a test."""

    allowed: str
    accepts: Callable[[Any], bool]


def _is_number(value: object, kind: type | tuple[type, ...]) -> bool:
    """Whether a value is a number; ``true`` is an ``int`` to Python, but not to a reader."""
    return isinstance(value, kind) and not isinstance(value, bool)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _list_of(accepts: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(accepts, value))


def _matching(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _one_of(*choices: str) -> _Rule:
    return _Rule(f"one of {', '.join(choices)}", lambda value: value in choices)


_INT = _Rule("a whole number of at least 0", lambda v: _is_number(v, int) and v >= 0)
_POSITIVE_INT = _Rule("a whole number of at least 1", lambda v: _is_number(v, int) and v >= 1)
_ADDRESS = _Rule("an https:// address without query string", _matching(r"https://[^\s?#]+"))
_RGB = _Rule(
    "a list of three numbers in (0, 1]",
    lambda v: _list_of(lambda x: _is_number(x, (int, float)) and 0 < x <= 1)(v) and len(v) == 3,
)
_TYPE_RULES: dict[object, _Rule] = {
    str: _Rule("text", _is_text),
    bool: _Rule("true or false", lambda v: isinstance(v, bool)),
    int: _POSITIVE_INT,
    float: _Rule("a number above 0", lambda v: _is_number(v, (int, float)) and 0 < v < math.inf),
    tuple[str, ...]: _Rule("a list of texts", _list_of(_is_text)),
    tuple[int, ...]: _Rule(
        "a list of whole numbers of at least 1", _list_of(_POSITIVE_INT.accepts)
    ),
}
_FIELD_RULES = {
    "id": _Rule("lower-case letters, digits and _", _matching(r"[a-z][a-z0-9_]*")),
    "evidence": _one_of("A", "B", "C", "N"),
    "fetch": _one_of("http", "manual"),
    "container": _one_of("zip", "legacy", "safetensors", "tar.gz"),
    "interpolation": _one_of("bicubic", "bilinear"),
    "url": _ADDRESS,
    "backbone_url": _ADDRESS,
    "mirrors": _Rule("a list of https:// addresses", _list_of(_ADDRESS.accepts)),
    "query_env": _Rule("the name of an environment variable", _matching(r"[A-Z][A-Z0-9_]*")),
    "sha256": _Rule("64 lower-case hexadecimal digits", _matching(r"[0-9a-f]{64}")),
    "linear_layers": _INT,
    "activation": _one_of("gelu", "relu"),
    "mean": _RGB,
    "std": _RGB,
}


def load_manifest(path: Path | None = None) -> Manifest:
    """Read a manifest, by default the one of this package, with what every row inherits."""
    # a ManifestError names the row and the field that break a rule; torch is not imported
    path = path or _packaged_path()
    document = _mapping(read_settings(path, ManifestError), path.name)
    _check_names(document, _TOP_LEVEL, path.name)
    if document.get("schema") != 1:
        raise ManifestError(f"{path.name}: schema is {document.get('schema')!r}, not 1.")
    profiles = {
        str(name): _build(PreprocessingProfile, values, f"{path.name}: preprocessing {name!r}")
        for name, values in _mapping(document.get("preprocessing"), path.name).items()
    }
    families = _families(_mapping(document.get("families"), path.name), path.name)
    rows = document.get("checkpoints")
    if not isinstance(rows, list):
        raise ManifestError(f"{path.name}: checkpoints is {reprlib.repr(rows)}, not a list.")
    entries = _entries(rows, families, path.name)
    recipes = {name: values.get("recipe", Recipe()) for name, values in families.items()}
    for name, recipe in recipes.items():
        _check_profile(recipe, profiles, f"{path.name}: family {name!r}")
    for entry in entries:
        _check_entry(entry, f"{path.name}: checkpoint {entry.id!r}")
        _check_profile(entry.recipe, profiles, f"{path.name}: checkpoint {entry.id!r}")
    return Manifest(
        entries=entries, recipes=MappingProxyType(recipes), preprocessing=MappingProxyType(profiles)
    )


def _packaged_path() -> Path:
    """The copy in an installed package, or the file itself in an editable checkout."""
    checkout = Path(__file__).resolve().parents[2] / FILE_NAME
    packaged = Path(str(resources.files("collapse_audit"))) / FILE_NAME
    return packaged if packaged.is_file() else checkout


def _mapping(value: object, where: str) -> dict[Any, Any]:
    """A mapping, or an error that says what stands there instead."""
    if not isinstance(value, dict):
        raise ManifestError(f"{where}: {reprlib.repr(value)} is not a mapping of fields.")
    return value


def _check_names(values: dict[Any, Any], allowed: Iterable[str], where: str) -> None:
    allowed = tuple(allowed)
    for name in values:
        if name not in allowed:
            likely = did_you_mean(str(name), allowed) or f"Fields: {', '.join(allowed)}."
            raise ManifestError(f"{where}: no field is called {name!r}.", hint=likely)


def _known(cls: type[T]) -> dict[str, Field[Any]]:
    return {f.name: f for f in fields(cls) if not f.metadata.get("derived")}


def _checked(f: Field[Any], value: Any, where: str) -> Any:
    """A value as the dataclass holds it, or an error that says what is allowed."""
    choices = get_args(f.type) if NoneType in get_args(f.type) else (f.type,)
    if value is None and NoneType in choices:
        return None
    if f.name == "published":
        counts = value if isinstance(value, list) else [value]
        return tuple(_build(PublishedCount, v, f"{where}: published") for v in counts)
    if f.name == "recipe":
        return _recipe(value, f"{where}: recipe")
    rule = _FIELD_RULES.get(f.name) or _TYPE_RULES[choices[0]]
    if not rule.accepts(value):
        null = " or null" if NoneType in choices else ""
        raise ManifestError(
            f"{where}: {f.name} is {reprlib.repr(value)}, but must be {rule.allowed}{null}."
        )
    return tuple(value) if isinstance(value, list) else value


def _checked_fields(cls: type[T], values: object, where: str) -> dict[str, Any]:
    """Every value of a mapping checked, with nothing said about what is missing."""
    known = _known(cls)
    mapping = _mapping(values, where)
    _check_names(mapping, known, where)
    return {name: _checked(known[name], value, where) for name, value in mapping.items()}


def _recipe(values: object, where: str) -> Recipe:
    """A recipe, in which nothing is set without its source."""
    known, stated, sources = _known(Recipe), {}, {}
    mapping = dict(_mapping(values, where))
    repository = mapping.pop("repository", None)
    if repository is not None and not _is_text(repository):
        raise ManifestError(f"{where}: repository is {repository!r}, but must be text.")
    _check_names(mapping, known, where)
    for name, pair in mapping.items():
        _check_names(_mapping(pair, f"{where}: {name}"), ("value", "source"), f"{where}: {name}")
        if "value" not in pair or not _is_text(pair.get("source")):
            raise ManifestError(f"{where}: {name} needs a value and the source of it.")
        stated[name] = _checked(known[name], pair["value"], where)
        sources[name] = f"{repository} {pair['source']}" if repository else pair["source"]
    return Recipe(**stated, sources=sources)


def _build(cls: type[T], values: object, where: str, inherited: dict[str, Any] | None = None) -> T:
    """A dataclass from a mapping; `inherited` is checked already."""
    own, inherited = _checked_fields(cls, values, where), inherited or {}
    checked = {**inherited, **own}
    if "recipe" in own and "recipe" in inherited:
        checked["recipe"] = inherited["recipe"].changed_by(own["recipe"])
    for name, f in _known(cls).items():
        if f.default is MISSING and name not in checked:
            raise ManifestError(f"{where}: {name} is missing.")
    return cls(**checked)


def _families(families: dict[Any, Any], file: str) -> dict[str, dict[str, Any]]:
    """What each family hands down."""
    for name, values in families.items():
        if not _is_text(name):
            raise ManifestError(f"{file}: family {name!r}: the name must be text.")
        for forbidden in _ROW_ONLY.intersection(_mapping(values, f"{file}: family {name!r}")):
            raise ManifestError(
                f"{file}: family {name!r}: {forbidden} is a fact about one row; set it there."
            )
    return {
        name: _checked_fields(CheckpointEntry, values, f"{file}: family {name!r}")
        for name, values in families.items()
    }


def _entries(
    rows: list[Any], families: dict[str, dict[str, Any]], file: str
) -> tuple[CheckpointEntry, ...]:
    """The rows with what they inherit, and the file name of a URL that only one row has."""
    entries: dict[str, CheckpointEntry] = {}
    for number, row in enumerate(rows, start=1):
        named = isinstance(row, dict) and _FIELD_RULES["id"].accepts(row.get("id"))
        where = f"{file}: checkpoint {row['id']!r}" if named else f"{file}: row {number}"
        family = _mapping(row, where).get("family")
        if not isinstance(family, str) or family not in families:
            likely = did_you_mean(str(family), families)
            hint = f"{likely} Families: {', '.join(families)}.".strip()
            raise ManifestError(f"{where}: family is {family!r}, which is not there.", hint=hint)
        entry = _build(CheckpointEntry, row, where, families[family])
        if entry.id in entries:
            raise ManifestError(f"{where}: id is taken by another row; ids are unique.")
        entries[entry.id] = entry
    originals = {e.id: base_name(e.url) for e in entries.values() if e.url and e.fetch == "http"}
    unique = {name for name, count in Counter(originals.values()).items() if name and count == 1}
    return tuple(
        replace(e, original_name=originals[e.id]) if originals.get(e.id) in unique else e
        for e in entries.values()
    )


def _check_profile(recipe: Recipe, profiles: dict[str, PreprocessingProfile], where: str) -> None:
    """A recipe names a profile of the file, or none."""
    if "preprocessing" in recipe.sources and recipe.preprocessing not in profiles:
        raise ManifestError(
            f"{where}: preprocessing is {recipe.preprocessing!r}, which is not there.",
            hint=f"Profiles: {', '.join(profiles)}.",
        )


def _check_entry(entry: CheckpointEntry, where: str) -> None:
    """The rules that tie several fields together."""
    if entry.id in COMMANDS:
        raise ManifestError(f"{where}: id is the name of a command; choose another.")
    if (entry.evidence == "N") != (entry.url is None):
        raise ManifestError(
            f"{where}: evidence is {entry.evidence!r} and url is {entry.url!r}; "
            "N goes with null, and nothing else does."
        )
    for name, value in (("k", entry.k), ("d", entry.d)):
        if value is None and entry.note is None:
            raise ManifestError(f"{where}: {name} is null; the note must say why.")
