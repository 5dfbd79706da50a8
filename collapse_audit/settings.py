"""Files of settings: TOML or YAML, with errors on one line; a key given twice is one."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from collapse_audit.errors import CollapseAuditError, ParameterError, SourceError
from collapse_audit.files import read_bounded
from collapse_audit.words import printable


def read_settings(path: Path, error: type[CollapseAuditError] = ParameterError) -> Any:
    """Read a file of settings.

    Args:
        path: TOML if it ends in .toml, else YAML.
        error: What is raised if it is not what it should be.

    Returns:
        Its content in plain values.

    Raises:
        SourceError: If it cannot be read.
        error: If it is not text, is not valid, or gives a key twice.
    """
    toml = path.suffix == ".toml"
    try:
        text = read_bounded(path).decode()
        return tomllib.loads(text) if toml else _load_yaml(text)
    except OSError as problem:
        raise SourceError(f"{path}: cannot be read ({problem.strerror}).") from problem
    except (ValueError, RecursionError) as problem:
        line = printable(" ".join(str(problem).split()), 300)
        raise error(f"{path}: not valid {'TOML' if toml else 'YAML'}: {line}.") from problem


def _load_yaml(text: str) -> Any:
    """The document; whatever is wrong with it is a ``ValueError``."""
    import yaml

    # libyaml reads the same about ten times faster, where PyYAML was built with it
    safe: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

    class UniqueKeyLoader(safe):  # type: ignore[misc, valid-type]
        """YAML would keep the last of two equal keys, silently."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen = set()
            for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
                if key.value in seen:
                    line = key.start_mark.line + 1
                    raise ValueError(f"line {line}: {key.value} stands there twice; keep one")
                seen.add(key.value)
            mapping: dict[Any, Any] = super().construct_mapping(node, deep=deep)
            return mapping

    try:
        return yaml.load(text, UniqueKeyLoader)  # noqa: S506 - it extends the safe loader
    except yaml.YAMLError as error:
        raise ValueError(error) from error
