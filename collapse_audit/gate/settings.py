"""Settings of ``collapse-audit check`` in ``pyproject.toml`` or ``collapse-audit.toml``."""

from __future__ import annotations

import difflib
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from collapse_audit.errors import ParameterError
from collapse_audit.gate.pairing import DIFFERENCES, Difference

#: What to do if the baseline file does not exist.
MISSING_BASELINE: Final = ("fail", "create", "skip")

_TABLES: Final = {
    "collapse-audit.toml": ("check",),
    "pyproject.toml": ("tool", "collapse-audit", "check"),
}
_KEYS: Final = ("allow", "baseline", "epsilon", "fail-on", "missing-baseline")


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """Settings of a check; an option of the command line wins over each of them.

    Attributes:
        fail_on: Thresholds.
        baseline: Report to compare with.
        missing_baseline: One of :data:`MISSING_BASELINE`; ``None`` if not set.
        epsilon: Cosine distance of the audit; ``None`` if not set.
        allow: Differences between report and baseline that are no obstacle.
    """

    fail_on: tuple[str, ...] = ()
    baseline: Path | None = None
    missing_baseline: str | None = None
    epsilon: float | None = None
    allow: tuple[Difference, ...] = ()


def find_settings(folder: Path) -> CheckSettings:
    """Settings of the nearest file that has any, from a folder upwards.

    Args:
        folder: Where to start; usually the current folder.

    Returns:
        ``[check]`` of ``collapse-audit.toml``, or ``[tool.collapse-audit.check]`` of
        ``pyproject.toml``; the defaults if there is neither.

    Raises:
        ParameterError: If a file is malformed, or holds an unknown key or a value of a wrong type.
    """
    for place in (folder, *folder.parents):
        for name in _TABLES:
            path = place / name
            if path.is_file() and (table := _table(path)) is not None:
                return _settings(table, path)
    return CheckSettings()


def read_settings(path: Path) -> CheckSettings:
    """Settings of one file.

    Args:
        path: A TOML file with a table ``[check]``, or one named ``pyproject.toml``.

    Returns:
        The settings.

    Raises:
        ParameterError: If the file is missing or malformed, has no such table, or holds an
            unknown key or a value of a wrong type.
    """
    table = _table(path)
    if table is None:
        raise ParameterError(f"{path}: has no table [{'.'.join(_table_of(path))}].")
    return _settings(table, path)


def _table_of(path: Path) -> tuple[str, ...]:
    return _TABLES.get(path.name, ("check",))


def _table(path: Path) -> dict[str, Any] | None:
    try:
        table: Any = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParameterError(f"{path}: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ParameterError(f"{path}: not valid TOML ({error}).") from error
    for key in _table_of(path):
        table = table.get(key) if isinstance(table, dict) else None
    return table if isinstance(table, dict) else None


def _settings(table: dict[str, Any], path: Path) -> CheckSettings:
    for key in table.keys() - set(_KEYS):
        close = difflib.get_close_matches(key, _KEYS, n=1)
        raise ParameterError(
            f"{path}: there is no setting {key!r}.",
            hint=f"Did you mean {close[0]}?" if close else f"There are: {', '.join(_KEYS)}.",
        )
    baseline = _typed(table, "baseline", str, path)
    epsilon = _typed(table, "epsilon", float, path)
    missing = _typed(table, "missing-baseline", str, path)
    if missing is not None:
        _one_of(missing, MISSING_BASELINE, f"{path}: missing-baseline")
    allow = _strings(table, "allow", path)
    for difference in allow:
        _one_of(difference, DIFFERENCES, f"{path}: allow")
    return CheckSettings(
        fail_on=_strings(table, "fail-on", path),
        baseline=None if baseline is None else path.parent / baseline,
        missing_baseline=missing,
        epsilon=epsilon,
        allow=allow,  # type: ignore[arg-type]  # each one was compared with the literals
    )


def _typed(table: dict[str, Any], key: str, kind: type, path: Path) -> Any:
    value = table.get(key)
    if value is not None and not isinstance(value, kind):
        raise ParameterError(f"{path}: {key} must be a {kind.__name__}, got {value!r}.")
    return value


def _strings(table: dict[str, Any], key: str, path: Path) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ParameterError(f"{path}: {key} must be a list of strings, got {value!r}.")
    return tuple(value)


def _one_of(value: str, known: tuple[str, ...], where: str) -> None:
    if value not in known:
        raise ParameterError(f"{where}: {value!r} is none of {', '.join(known)}.")
