"""Files that are cut or changed anywhere: one line that says so, and never another failure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from collapse_audit.errors import CheckpointError, CollapseAuditError
from collapse_audit.sources import load_prototypes
from tests.small_checkpoints import GOOD_FILES, WEIGHT

FILES = sorted(GOOD_FILES)
fuzz = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)


@pytest.mark.parametrize("name", FILES)
def test_the_undamaged_file_is_good(name: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(GOOD_FILES[name])
    np.testing.assert_array_equal(load_prototypes(path).rows, WEIGHT.numpy())


@pytest.mark.parametrize("name", FILES)
@given(fraction=st.floats(0, 1, exclude_max=True))
@example(fraction=0.0)
@fuzz
def test_a_file_cut_anywhere_is_a_checkpoint_error(
    name: str, fraction: float, tmp_path: Path
) -> None:
    content = GOOD_FILES[name]
    path = tmp_path / "cut"
    path.write_bytes(content[: int(fraction * len(content))])
    with pytest.raises(CheckpointError, match="cut: ") as caught:
        load_prototypes(path)
    assert "\n" not in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("tenth", range(10))
@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_at_a_tenth_is_a_checkpoint_error(name: str, tenth: int, tmp_path: Path) -> None:
    content = GOOD_FILES[name]
    path = tmp_path / "cut"
    path.write_bytes(content[: tenth * len(content) // 10])
    with pytest.raises(CheckpointError, match="cut: "):
        load_prototypes(path)


@pytest.mark.parametrize("name", FILES)
@given(data=st.data())
@fuzz
def test_a_file_changed_anywhere_never_fails_in_another_way(
    name: str, data: st.DataObject, tmp_path: Path
) -> None:
    content = bytearray(GOOD_FILES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "changed"
    path.write_bytes(content)
    try:
        load_prototypes(path)
    except CollapseAuditError as error:
        assert "\n" not in str(error)  # noqa: PT017  (a change may also be harmless)
