"""Settings of ``collapse-audit check`` in ``pyproject.toml`` or ``collapse-audit.toml``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from collapse_audit.errors import ParameterError
from collapse_audit.gate.pairing import DIFFERENCES, Difference
from collapse_audit.gate.thresholds import parse_threshold
from collapse_audit.prototypes import DEFAULT_EPSILON, check_epsilon
from collapse_audit.settings import read_settings as load_settings
from collapse_audit.words import did_you_mean

#: What to do if the baseline file does not exist.
MISSING_BASELINE: Final = ("fail", "create", "skip")

_TABLES: Final = {
    "collapse-audit.toml": ("check",),
    "pyproject.toml": ("tool", "collapse-audit", "check"),
}
_KINDS: Final = {
    "allow": "list of strings",
    "baseline": "string",
    "epsilon": "float",
    "fail-on": "list of strings",
    "missing-baseline": "string",
}
_CHOICES: Final = {"allow": DIFFERENCES, "missing-baseline": MISSING_BASELINE}


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """Settings of a check; an option of the command line wins over each of them."""

    fail_on: tuple[str, ...] = ()  # thresholds
    baseline: Path | None = None  # report to compare with
    missing_baseline: str | None = None  # one of :data:`MISSING_BASELINE`
    epsilon: float | None = None  # cosine distance of the audit
    allow: tuple[Difference, ...] = ()  # differences from the baseline that are no obstacle


def find_settings(folder: Path) -> CheckSettings:
    """Settings of the nearest file that has any, from a folder upwards; else the defaults."""
    for place in (folder, *folder.parents):
        for name in _TABLES:
            path = place / name
            if path.is_file() and (table := _table(path)) is not None:
                return _settings(table, path)
    return CheckSettings()


def read_settings(path: Path) -> CheckSettings:
    """Settings in the table ``check`` of a TOML or YAML file, or of a ``pyproject.toml``."""
    table = _table(path)
    if table is None:
        raise ParameterError(f"{path}: has no table [{'.'.join(_table_of(path))}].")
    return _settings(table, path)


def _table_of(path: Path) -> tuple[str, ...]:
    return _TABLES.get(path.name, ("check",))


def _table(path: Path) -> dict[str, Any] | None:
    table = load_settings(path)
    for key in _table_of(path):
        table = table.get(key) if isinstance(table, dict) else None
    return table if isinstance(table, dict) else None


def _settings(table: dict[str, Any], path: Path) -> CheckSettings:
    for key, value in table.items():
        if key not in _KINDS:
            hint = did_you_mean(key, _KINDS) or f"There are: {', '.join(_KINDS)}."
            raise ParameterError(f"{path}: there is no setting {key!r}.", hint=hint)
        several = isinstance(value, list)
        chosen = value if several else [value]
        kind = float if key == "epsilon" else str
        if several != ("list" in _KINDS[key]) or not all(isinstance(one, kind) for one in chosen):
            raise ParameterError(f"{path}: {key} must be a {_KINDS[key]}, got {value!r}.")
        if unknown := [one for one in chosen if one not in _CHOICES.get(key, chosen)]:
            known = ", ".join(_CHOICES[key])
            raise ParameterError(f"{path}: {key}: {unknown[0]!r} is none of {known}.")
    given = {key.replace("-", "_"): value for key, value in table.items()}
    if "baseline" in given:
        given["baseline"] = path.parent / given["baseline"]
    lists = {key: tuple(value) for key, value in given.items() if isinstance(value, list)}
    try:
        for text in given.get("fail_on", ()):
            parse_threshold(text)
        check_epsilon(given.get("epsilon", DEFAULT_EPSILON))
    except ParameterError as error:
        raise ParameterError(f"{path}: {error.message}", hint=error.hint) from error
    return CheckSettings(**(given | lists))
