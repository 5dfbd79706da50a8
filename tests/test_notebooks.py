"""The notebooks: both files of a pair agree, hold no outputs, and run from top to bottom."""

from __future__ import annotations

import os
from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = sorted((Path(__file__).resolve().parents[1] / "notebooks").glob("*.py"))
NAMES = [path.stem for path in NOTEBOOKS]


def cells(notebook: nbformat.NotebookNode) -> list[tuple[str, str]]:
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def test_the_notebooks_of_the_documentation_are_all_here() -> None:
    assert NAMES == ["01_audit_and_redundancy", "02_mlcd", "03_train_and_audit_again"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_both_files_of_a_pair_hold_the_same_cells(path: Path) -> None:
    script = jupytext.read(path)
    paired = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    nbformat.validate(paired)
    assert cells(paired) == cells(script)
    assert paired.metadata["kernelspec"] == script.metadata["kernelspec"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_no_output_is_kept(path: Path) -> None:
    notebook = nbformat.read(path.with_suffix(".ipynb"), as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.outputs for cell in code] == [[]] * len(code)
    assert {cell.execution_count for cell in code} == {None}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_only_public_names_are_used(path: Path) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    imports = {line.strip() for line in lines if line.strip().startswith(("import ", "from "))}
    known = {"import collapse_audit", "import matplotlib.pyplot as plt", "import numpy as np"}
    assert imports <= known | {
        "import pandas as pd",
        "import tempfile",
        "from pathlib import Path",
    }


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels find this package, an empty folder, and no network."""
    monkeypatch.chdir(tmp_path)
    search = (str(NOTEBOOKS[0].parents[1]), os.environ.get("PYTHONPATH", ""))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(part for part in search if part))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # nothing listens there


# What a cell shows, by its text: the types that its outputs have, besides text.
SHOWN = {
    "import collapse_audit": [],
    "audit = collapse_audit.audit('demo')": [],
    "audit": ["text/html"],
    "collapse_audit.plot_sweep(audit)": ["image/png"],
    "ax = audit.plot()": ["image/png"],
    "for factors in ([3, 1], [2, 2]):\n    collapse_audit.plot_redundancy_factors(factors)": [
        "image/png",
        "image/png",
    ],
    "from matplotlib import pyplot as plt\nassert plt.get_fignums() == []": [],
    "_, axes = plt.subplots(1, 2)\nfor ax in axes: audit.plot(ax=ax)": ["image/png"],
}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # those of Jupyter, as below
@pytest.mark.usefixtures("offline")
def test_a_cell_shows_the_audit_with_its_figures_and_every_plot_once() -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in SHOWN])
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    shown = {
        cell.source: [
            kind
            for output in cell.outputs
            for kind in output.get("data", {})
            if kind != "text/plain"
        ]
        for cell in notebook.cells
    }
    assert shown == SHOWN
    (audit,) = [cell.outputs[0]["data"] for cell in notebook.cells if cell.source == "audit"]
    assert "112 different directions" in audit["text/html"]
    assert audit["text/html"].count("<svg") == 2
    assert len(audit["text/plain"]) < 200


@pytest.mark.slow
# Jupyter's client and kernel warn about sockets, paths and event loops; none of that is ours
@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_a_notebook_runs_offline_and_shows_what_it_says(path: Path, tmp_path: Path) -> None:
    notebook = jupytext.read(path)
    NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    shown = [output.get("data", {}) for output in outputs]
    text = "\n".join(
        [output.get("text", "") for output in outputs]
        + [data.get(kind, "") for data in shown for kind in ("text/plain", "text/html")]
    )
    assert [output for output in outputs if output.get("name") == "stderr"] == []
    assert sum("image/png" in data for data in shown) == (1 if path.stem.startswith("03") else 3)
    expected = {
        "01_audit_and_redundancy": [
            "(512, 112)",
            "112 different directions",
            "definition_independent=False",
        ],
        "02_mlcd": ["4 unique: p = [0.25 0.25 0.25 0.25], I = log 4.000", "I = log 2.000"],
        # M = K with KoLeo-proto, and after the repair
        "03_train_and_audit_again": ["('koleo-proto', 256): (256, [1, 1, 1, 1, 1])", ", 256)"],
    }
    for part in expected[path.stem]:
        assert part in text
    assert list(tmp_path.iterdir()) == []
