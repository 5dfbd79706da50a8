"""Modules that stand in for packages."""

from __future__ import annotations

import sys
import types
from typing import Any

import pytest


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, **attributes: Any) -> None:
    """Put a module in the place of a package, and of those that it is in, torch left out."""
    parts = name.split(".")
    for end in range(1, len(parts) + 1):
        path = ".".join(parts[:end])
        if not path.startswith("torch") or path == name:
            monkeypatch.setitem(sys.modules, path, types.ModuleType(path))
    for key, value in attributes.items():
        setattr(sys.modules[name], key, value)
