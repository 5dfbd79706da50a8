"""YAML file -> plain values."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from collapse_audit.errors import ManifestError

if TYPE_CHECKING:
    from yaml import SafeLoader as _SafeLoader
else:  # libyaml reads the same about ten times faster, where PyYAML was built with it
    _SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _UniqueKeyLoader(_SafeLoader):
    """A safe loader to which a key given twice is an error: YAML would keep the last, silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        scalars = [(key.value, value) for key, value in node.value if isinstance(key.value, str)]
        for name, count in Counter(name for name, _ in scalars).items():
            if count > 1:
                row = next((value.value for key, value in scalars if key == "id"), None)
                where = f"checkpoint {row!r}" if row else f"line {node.start_mark.line + 1}"
                raise ManifestError(f"{where}: {name} stands there twice; keep one.")
        return super().construct_mapping(node, deep=deep)


def read_yaml(path: Path) -> object:
    """Read the document of a file.

    Args:
        path: A YAML file.

    Returns:
        What stands in it.

    Raises:
        ManifestError: If it cannot be read or is no YAML; on one line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{path}: cannot read the manifest: {error}.") from None
    try:
        return yaml.load(text, _UniqueKeyLoader)  # noqa: S506 - it extends the safe loader
    except ManifestError as error:
        raise ManifestError(f"{path.name}: {error.message}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: an impossible date
        raise ManifestError(f"{path.name}: not YAML: {' '.join(str(error).split())}.") from None
