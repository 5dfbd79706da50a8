"""The public names in a session: what they take, what they say, how their results show."""

from __future__ import annotations

import inspect
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

import collapse_audit
from collapse_audit import (
    CollapseAudit,
    CollapseAuditError,
    CollapseAuditWarning,
    ParameterError,
    Prototypes,
    audit,
    check,
    compare,
    measure_mlcd,
    plot_rank_frequency,
    plot_redundancy_factors,
    plot_sweep,
    plot_usage,
)

MATRIX = np.eye(4, dtype=np.float32)[[0, 1, 1, 2, 1]]  # M = 3: {1, 2, 4}, {0}, {3}


@pytest.fixture(scope="module")
def measured() -> CollapseAudit:
    """An audit of the demo with its class distribution."""
    found = audit("demo", nearest=False)
    mlcd = measure_mlcd("demo", "digits", groups=found.groups, temperature=0.04, limit=50)
    return replace(found, mlcd=mlcd)


# --- audit ---------------------------------------------------------------------------------------


def test_one_call_audits_a_file_an_id_or_what_is_in_memory(tmp_path: Path) -> None:
    save_file({"head.last_layer.weight": MATRIX}, tmp_path / "head.safetensors")
    matrix = torch.from_numpy(MATRIX)
    heads = (tmp_path / "head.safetensors", str(tmp_path / "head.safetensors"), MATRIX, matrix)
    for head in (*heads, Prototypes.from_weight(MATRIX)):
        found = audit(head)
        assert isinstance(found, CollapseAudit)
        assert found.redundancy_factors.tolist() == [3, 1, 1]
    demo = audit("demo", epsilon=0.1, sweep=False)
    assert (demo.num_unique, demo.redundancy.sweep) == (47, ())
    assert demo.source.sha256 is not None, "the same report as from the command line"


def test_of_several_heads_it_takes_one_and_names_the_others(tmp_path: Path) -> None:
    heads = {"dino_head": MATRIX, "ibot_head": np.eye(4, dtype=np.float32)}
    path = tmp_path / "heads.safetensors"
    save_file({f"{name}.last_layer.weight": rows for name, rows in heads.items()}, path)
    with pytest.warns(CollapseAuditWarning, match="took head 'dino_head'; .* also has ibot_head"):
        assert audit(path).num_unique == 3
    assert audit(path, head="ibot_head").num_unique == 4
    assert [one.num_unique for one in collapse_audit.audit_source(path)] == [3, 4]


def test_the_members_of_a_group_are_the_copies_of_one_prototype() -> None:
    found = audit(MATRIX)
    assert [found.members(group).tolist() for group in range(3)] == [[1, 2, 4], [0], [3]]
    for group in (-1, 3):
        with pytest.raises(ParameterError, match="group must be from 0 to 2"):
            found.members(group)


# --- what the public functions take --------------------------------------------------------------

WRONG = {
    "a path": "absent.pth",
    "nothing": None,
    "a number": 3,
    "a dictionary": {"a": 1},
    "whole numbers": [1, 2, 3],
    "ragged rows": [[1.0], [1.0, 2.0]],
    "a module": torch.nn.Linear(3, 4),
}
CALLS: dict[str, dict[str, Any]] = {"MLCDAccumulator": {"temperature": 0.1}}
SOUND = {("PrototypeMonitor", "a module"), ("plot_redundancy_factors", "whole numbers")}
PUBLIC = [
    name
    for name in collapse_audit.__all__
    if inspect.isfunction(getattr(collapse_audit, name)) and name != "embedded_head"
]


@pytest.mark.parametrize("kind", WRONG)
@pytest.mark.parametrize("name", [*PUBLIC, "MLCDAccumulator", "PrototypeMonitor"])
def test_every_public_function_says_in_one_line_what_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str
) -> None:
    if (name, kind) in SOUND:
        return
    monkeypatch.chdir(tmp_path)
    function = getattr(collapse_audit, name)
    signature = inspect.signature(function).parameters.values()
    needed = [p for p in signature if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD]
    with pytest.raises(CollapseAuditError) as caught:
        function(*[WRONG[kind]] * len(needed), **CALLS.get(name, {}))
    assert len(str(caught.value).splitlines()) == 1


def test_names_of_files_are_read_where_a_report_or_an_audit_is_taken(tmp_path: Path) -> None:
    path, saved = tmp_path / "head.safetensors", tmp_path / "saved.json"
    save_file({"head.last_layer.weight": MATRIX}, path)
    saved.write_text(audit(path).to_json(), encoding="utf-8")
    side_by_side = compare(path, str(path), saved)
    assert [head.rows[2].values for head in side_by_side.heads] == [(3, 3, 3)]
    assert side_by_side.heads[0].regroupings[0] is not None, "audits, not only their reports"
    assert str(side_by_side).startswith("A  head.safetensors\n")
    assert check(str(path), saved).passed
    assert not check(MATRIX_AUDIT := audit(MATRIX), thresholds=["M<4"]).passed
    assert check(MATRIX_AUDIT, str(saved)).passed


def test_a_sharded_checkpoint_is_no_report_by_its_name() -> None:
    from collapse_audit.gate.subjects import is_report

    assert is_report("monday.JSON")
    assert not is_report("model.safetensors.index.json")


# --- how results show ----------------------------------------------------------------------------


def test_the_repr_of_every_result_is_short(measured: CollapseAudit) -> None:
    assert measured.mlcd is not None
    model = collapse_audit.load_head_model("demo", images=False)
    full = audit(MATRIX, sweep=True)
    results = [
        *(measured, measured.mlcd, measured.redundancy, measured.prototypes, model, full),
        *(full.redundancy.nearest, full.redundancy.bracket, check(full, thresholds=["M<2"])),
        *(compare(full, full), collapse_audit.open_samples("digits"), measured.source),
    ]
    for result in results:
        shown = repr(result)
        assert len(shown) < 200, shown
        assert type(result).__name__ in shown
    assert "k=512, m=112" in repr(measured.mlcd)


def test_plots_take_the_audit_itself(measured: CollapseAudit) -> None:
    levels = measured.redundancy.sweep
    expected = [[level.threshold, level.greedy] for level in levels]
    for given in (measured, measured.redundancy, levels):
        assert plot_sweep(given).get_lines()[0].get_xydata().tolist() == expected
    factors = measured.redundancy_factors.tolist()
    drawn = [measured.plot(), *map(plot_redundancy_factors, (measured, measured.redundancy))]
    for ax in drawn:
        assert ax.get_lines()[0].get_ydata().tolist() == factors
    for draw in (plot_rank_frequency, plot_usage, collapse_audit.plot_redundancy_vs_mass):
        ours, theirs = draw(measured).get_lines()[0], draw(measured.mlcd).get_lines()[0]
        np.testing.assert_array_equal(ours.get_xydata(), theirs.get_xydata())
    with pytest.raises(ParameterError, match="this is CollapseAudit without one"):
        plot_usage(audit(MATRIX))


def test_a_script_opens_no_window_and_keeps_no_figure(tmp_path: Path) -> None:
    code = (
        "import collapse_audit, sys; audit = collapse_audit.audit('demo', nearest=False)\n"
        "for _ in range(30): ax = collapse_audit.plot_sweep(audit)\n"
        "ax.figure.savefig('sweep.png'); assert 'matplotlib.pyplot' not in sys.modules\n"
        "from matplotlib import pyplot; assert pyplot.get_fignums() == []"
    )
    path = str(Path(collapse_audit.__file__).parents[1])
    command = [
        sys.executable,
        "-W",
        "error",
        "-c",
        f"import sys; sys.path[:0] = [{path!r}]\n{code}",
    ]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert (tmp_path / "sweep.png").stat().st_size > 1000
