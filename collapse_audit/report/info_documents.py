"""Types of the document that ``info --json`` prints."""

from __future__ import annotations

from typing import TypedDict


class InfoHead(TypedDict):
    """A head as it is stored."""

    name: str
    branch: str | None
    k: int
    d: int
    dtype: str
    parametrisation: str
    tensor_keys: list[str]
    aliases: list[str]
    default: bool
    audited: bool
    notes: list[str]


class KeyCount(TypedDict):
    """A key of the outermost dictionary, and the tensors below it."""

    key: str
    tensors: int


class ModuleCount(TypedDict):
    """A module, its tensors and their values."""

    module: str
    tensors: int
    values: int


class _Matrix(TypedDict):
    key: str
    shape: list[int]
    dtype: str


class InfoDocument(TypedDict):
    """What a file holds."""

    schema: str
    schema_version: str
    source: dict[str, str | None]
    container: str
    size: int
    top_level: list[KeyCount]
    tree: list[ModuleCount]
    heads: list[InfoHead]
    centre_keys: list[str]
    matrices: list[_Matrix]
    notes: list[str]
