"""A sample of `make fuzz`."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def test_mutated_files_are_read_or_refused_and_run_nothing() -> None:
    path = Path(__file__).with_name("fuzz_readers.py")
    spec = importlib.util.spec_from_file_location("fuzz_readers", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    outcomes, failures = module.fuzz(count=400, seed=1)
    assert failures == []
    assert sum(outcomes.values()) == 800
    assert outcomes["parts: read"] > 50
    assert outcomes["parts: UnsafePickleError"] > 20
