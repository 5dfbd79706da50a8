"""Files of settings: TOML or YAML, with errors on one line; a key given twice is one."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

from collapse_audit.errors import CollapseAuditError, ParameterError, SourceError
from collapse_audit.files import read_bounded
from collapse_audit.words import printable

# Of a file of settings: ours have under 100 kB, and some hundred values.
_BYTES, _VALUES, _DIGITS, _PARTS = 1 << 20, 100_000, 70, 300


def read_settings(path: Path, error: type[CollapseAuditError] = ParameterError) -> Any:
    """Plain values of a TOML (.toml) or YAML file; a SourceError if it cannot be read."""
    # error: raised if it is not text, is not valid, or gives a key twice
    toml = path.suffix == ".toml"
    try:
        text = read_bounded(path, _BYTES).decode()
        content = _load_toml(text) if toml else _load_yaml(text)
        _check_size(content)
    except OSError as problem:
        raise SourceError(f"{path}: cannot be read ({problem.strerror}).") from problem
    except (ValueError, RecursionError) as problem:
        line = printable(" ".join(str(problem).split()), 300)
        raise error(f"{path}: not valid {'TOML' if toml else 'YAML'}: {line}.") from problem
    return content


def _check_size(content: Any) -> None:
    """Refuse few bytes that name one another until they are many values, and endless numbers."""
    left, waiting = _VALUES, [content]
    while waiting:
        value = waiting.pop()
        if isinstance(value, int) and abs(value) >> 63:
            raise ValueError("a number of 64 bits or more")
        if isinstance(value, dict | list | tuple | set):
            left -= len(value)
            if left < 0:
                raise ValueError(f"more than {_VALUES:,} values")
            waiting += value.values() if isinstance(value, dict) else value


def _load_toml(text: str) -> dict[str, Any]:
    """The document; keys of thousands of parts would take minutes."""
    if any(part.count(".") > _PARTS for part in re.split("[=\n]", text)):
        raise ValueError(f"a key of over {_PARTS} parts")
    return tomllib.loads(text)


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

        def construct_number(self, node: yaml.ScalarNode) -> Any:
            """59:59:59... is one, and takes a long time."""
            if len(node.value) > _DIGITS:
                raise ValueError(f"a number of over {_DIGITS} digits")
            return self.construct_yaml_int(node)

    UniqueKeyLoader.add_constructor("tag:yaml.org,2002:int", UniqueKeyLoader.construct_number)
    try:
        return yaml.load(text, UniqueKeyLoader)  # noqa: S506 - it extends the safe loader
    except yaml.YAMLError as error:
        raise ValueError(error) from error
