"""What the pages show is what the program does: every block of Python and every command is run.

Of each page the blocks are run one after the other, in one namespace and one folder, with
stand-ins for what the page takes as given. What is not run is listed with its reason.
"""

from __future__ import annotations

import doctest
import itertools
import re
import shlex
import shutil
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import collapse_audit
from collapse_audit import CollapseAuditWarning
from collapse_audit.cli import main

ROOT = Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if "_build" not in path.parts
}
BLOCKS = re.compile(r"^```(python|pycon|console)\n(.*?)^```$", flags=re.DOTALL | re.MULTILINE)

_RECIPE = "needs the package; run against a stand-in in test_monitor_recipes.py"
#: Beginning of a block of Python, by page -> why it is not run.
PYTHON_NOT_RUN = {
    ("docs/monitor.md", "monitor = PrototypeMonitor(head, log_to=["): (
        "needs TensorBoard; see test_monitor_trackers.py"
    ),
    ("docs/monitor.md", "from lightning.pytorch import"): _RECIPE,
    ("docs/monitor.md", "from transformers import"): _RECIPE,
}
_HISTORY = "needs the run that the page trains; see tests/history"
PYTHON_NOT_RUN[("docs/history.md", "from collapse_audit import audit_history")] = _HISTORY
#: Pages whose Python another test runs, block by block.
RUN_ELSEWHERE = {"docs/drop_in.md": "tests/test_drop_in.py"}
#: Pages whose Python writes the files that their commands are given.
MAKES_ITS_FILES = {"docs/codebooks.md", "docs/own_layout.md"}
_NETWORK, _IMAGES = "needs the network", "needs ImageNet and the backbone of a checkpoint"
#: Command, by page -> why it is not run.
COMMANDS_NOT_RUN = {
    ("README.md", "mlcd checkpoint.pth --data imagenet/val --limit 10000"): _IMAGES,
    ("README.md", "history RUN"): "a run of the reader's",
    ("README.md", "train --data digits --k 1024 --regulariser koleo-proto --out RUN"): "minutes",
    (
        "docs/gallery.md",
        "gallery checkpoint.pth --data imagenet/val --limit 10000 -o gallery.html",
    ): _IMAGES,
    ("docs/audit_release.md", "mlcd checkpoint.pth --data imagenet/val --limit 10000"): _IMAGES,
    ("docs/history.md", "train --data digits --k 256 --keep-every 100 --out run"): "minutes",
    ("docs/history.md", "history run --figure history.svg"): _HISTORY,
    ("docs/history.md", "history RUN --follow -o history.html"): "does not end",
    ("docs/history.md", "check run --fail-on trend.unique_fraction:-5% --fail-on M<50"): _HISTORY,
    ("docs/mlcd.md", "mlcd checkpoint.pth --data imagenet/val --limit 10000"): _IMAGES,
    ("docs/quickstart.md", "dino_vits16"): _NETWORK,
    ("docs/quickstart.md", "mlcd checkpoint.pth --data imagenet/val --limit 10000"): _IMAGES,
    (
        "docs/rankme.md",
        "mlcd simdino.pth --data images.npz --resize none --features kept.safetensors",
    ): "needs a backbone; see tests/test_features_command.py",
    ("docs/real.md", "audit spacy-3.7.1/vectors --format json -o baseline.json"): _NETWORK,
    (
        "docs/real.md",
        "check spacy-3.8.0/vectors --baseline baseline.json --fail-on unique_fraction:-5%",
    ): _NETWORK,
    ("docs/remote.md", "dino_vits16"): _NETWORK,
    ("docs/remote.md", "https://example.org/run/checkpoint.pth"): _NETWORK,
    ("docs/remote.md", "hf://org/repo/dino_head.safetensors"): _NETWORK,
    ("docs/remote.md", "s3://bucket/run/checkpoint.pth"): _NETWORK,
    ("docs/remote.md", "download dino_vits16 ibot_vits16"): _NETWORK,
    ("docs/remote.md", "reproduce --family dino"): _NETWORK,
    ("docs/remote.md", "cache clear dino_vits16"): "asks first",
}


@pytest.fixture(autouse=True)
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_dino: bytes) -> None:
    """A folder with the files that the pages name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    Path("path/to").mkdir(parents=True)
    for name in ("checkpoint.pth", "epoch1.pth", "epoch2.pth", "path/to/checkpoint.pth"):
        Path(name).write_bytes(small_dino)
    shutil.copy("checkpoint.pth", "path/to/file.pth")
    examples = ROOT / "collapse_audit" / "examples"
    for name, example in (("good", "koleo_proto"), ("before", "koleo_proto"),
                          ("head", "baseline"), ("after", "baseline")):  # fmt: skip
        shutil.copy(examples / f"digits_{example}.safetensors", f"{name}.safetensors")
    d = collapse_audit.load_prototypes("checkpoint.pth").d
    np.savez("features.npz", features=np.random.default_rng(0).standard_normal((20, d)))
    _, codebook, _ = blocks("docs/metric.md", "python")[0]
    exec(codebook, {})  # noqa: S102 - our page
    layers = {f"dino_head.mlp.{layer}.weight": torch.ones(8, 8) for layer in (0, 2)}
    torch.save({"teacher": layers}, "simdino.pth")


def gate(given: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """A report, a baseline, and the test of the page run by its fixture."""
    names = {
        "audit": collapse_audit.audit("after.safetensors"),
        "baseline": collapse_audit.audit("before.safetensors"),
    }
    yield names
    shutil.copy("good.safetensors", "head.safetensors")
    names["test_the_released_head_has_not_collapsed"](given.getfixturevalue("collapse_audit"))
    assert not names["verdict"].passed


def monitor(_given: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """Layers of a training, which has three steps."""
    import torch
    from torch import nn

    layers = [nn.Linear(8, 16, bias=False) for _ in range(3)]
    names = dict(zip(("teacher_head", "student_head", "head"), layers, strict=True))
    names |= {"loader": range(3), "train_step": lambda _: 1.0, "stop_training": print}
    names |= {
        "teacher": SimpleNamespace(head=layers[0]),
        "student": SimpleNamespace(head=layers[1]),
    }
    names |= {"dino_loss": SimpleNamespace(center=torch.zeros(1, 16)), "loss": 1.0}
    yield names | {"teacher_output": torch.zeros(4, 16)}
    assert Path("prototypes.jsonl").read_text(encoding="utf-8").count("\n") == 1
    assert Path("watch.jsonl").read_text(encoding="utf-8").count("\n") == 10


def quickstart(_given: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """A model with a weight-normed layer."""
    from torch import nn

    layer = nn.utils.parametrizations.weight_norm(nn.Linear(8, 16, bias=False))
    names = {"model": SimpleNamespace(head=SimpleNamespace(last_layer=layer))}
    yield names
    unique = names["prototypes"].unit_rows() @ layer.weight.detach().double().numpy().T
    np.testing.assert_allclose(np.diag(unique), names["prototypes"].norms, rtol=1e-6)


def engine(given: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """A head of 1,024 prototypes instead of 65,536."""
    from benchmarks import inputs

    make = inputs.make
    given.getfixturevalue("monkeypatch").setattr(
        inputs, "make", lambda kind, k, d: make(kind, k // 64, d)
    )
    names: dict[str, Any] = {}
    yield names
    assert names["tiles"]


GIVEN: dict[str, Callable[[pytest.FixtureRequest], Iterator[dict[str, Any]]]] = {
    "docs/gate.md": gate,
    "docs/monitor.md": monitor,
    "docs/quickstart.md": quickstart,
    "docs/engine.md": engine,
}


def blocks(page: str, *kinds: str) -> list[tuple[str, str, int]]:
    """Kind, text and line of the blocks of a page."""
    return [
        (found[1], found[2], PAGES[page].count("\n", 0, found.start()) + 1)
        for found in BLOCKS.finditer(PAGES[page])
        if found[1] in kinds
    ]


def with_blocks(*kinds: str) -> list[str]:
    return [page for page in PAGES if blocks(page, *kinds)]


@pytest.mark.parametrize(
    "page", [page for page in with_blocks("python", "pycon") if page not in RUN_ELSEWHERE]
)
def test_the_python_of_a_page_runs(page: str, request: pytest.FixtureRequest) -> None:
    setting = GIVEN[page](request) if page in GIVEN else iter([{}])
    names = next(setting)
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for kind, text, line in blocks(page, "python", "pycon"):
        if any(text.startswith(start) for where, start in PYTHON_NOT_RUN if where == page):
            continue
        if kind == "pycon":
            example = doctest.DocTestParser().get_doctest(text, names, page, page, line)
            assert runner.run(example, clear_globs=False).failed == 0
            names |= example.globs
        else:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", CollapseAuditWarning)
                exec(compile("\n" * line + text, page, "exec"), names)  # noqa: S102 - our page
    for _ in setting:  # what is checked afterwards
        pass


def commands(page: str) -> Iterator[tuple[str, str]]:
    """Commands of a page, each with what the page shows of their output."""
    for _, text, _ in blocks(page, "console"):
        for command, shown in re.findall(
            r"^\$ ((?:.*\\\n)*.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE
        ):
            yield " ".join(shlex.split(command.replace("\\\n", ""), comments=True)), shown


def run(command: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    capsys.readouterr()
    paths = (sorted(map(str, Path().glob(word))) if "*" in word else [word] for word in command)
    return main([*itertools.chain(*paths)]), "".join(capsys.readouterr())


@pytest.mark.parametrize("page", with_blocks("console"))
@pytest.mark.filterwarnings("ignore::collapse_audit.errors.CollapseAuditWarning")
def test_the_commands_of_a_page_print_what_it_shows(
    page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code = None
    if page in MAKES_ITS_FILES:
        names: dict[str, Any] = {}
        for _, text, _ in blocks(page, "python"):
            exec(text, names)  # noqa: S102 - our page
    for line, shown in commands(page):
        if line == "echo $?":
            assert int(shown) == code
        if line.startswith("collapse-audit ") and (page, line[15:]) not in COMMANDS_NOT_RUN:
            code, printed = run(shlex.split(line)[1:], capsys)
            assert words(shown) == (words(printed) if shown else []), line
            assert code == 0 or shown, f"{line}: {printed}"


def test_what_is_not_run_is_still_there() -> None:
    for page, test in RUN_ELSEWHERE.items():
        assert page in (ROOT / test).read_text(encoding="utf-8")
    for page, start in PYTHON_NOT_RUN:
        assert any(text.startswith(start) for _, text, _ in blocks(page, "python"))
    shown = {(page, line[15:]) for page in with_blocks("console") for line, _ in commands(page)}
    assert COMMANDS_NOT_RUN.keys() <= shown


@pytest.mark.parametrize(
    ("page", "command"),
    [("README.md", ["demo"]), ("docs/mlcd.md", ["mlcd", "demo", "--data", "digits"])],
)
def test_the_demo_prints_what_the_page_shows(
    page: str, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (block,) = re.findall(r"```text\n(.*?)```", PAGES[page], flags=re.DOTALL)
    code, printed = run([*command, "--quiet"], capsys)
    assert code == 0
    assert words(block) == words(printed[printed.index(block.split("\n")[0][:20]) :])


def test_the_lines_that_a_page_explains_are_those_of_the_demo(
    capsys: pytest.CaptureFixture[str],
) -> None:
    blocks = re.findall(r"```text\n(.*?)```", PAGES["docs/reading.md"], flags=re.DOTALL)
    code, output = run(["mlcd", "demo", "--data", "digits", "--quiet"], capsys)
    assert code == 0
    printed = [words(line) for line in output.splitlines()]
    lines = [line for block in blocks for line in block.splitlines()]
    assert len(lines) >= 5
    assert [line for line in lines if [*map(value, line.split())] not in printed] == []


def words(text: str) -> list[str | object]:
    """Words; numbers agree to three digits, for the last one depends on the processor."""
    return [number(word) for word in text.split()]


def number(word: str) -> str | object:
    found = value(word)
    return found if isinstance(found, str) else pytest.approx(found, rel=1e-3, abs=1e-4)


def value(word: str) -> str | float:
    try:
        return float(word.replace(",", "").strip("()"))
    except ValueError:
        return word


def test_the_summary_of_the_training_has_the_means_of_its_log() -> None:
    log = PAGES["docs/training_log.md"]
    summary = PAGES["docs/training_results.md"]
    rows = re.findall(r"^\| (digits|Fashion-MNIST) \| (\S+) \|(.*)\|$", summary, re.MULTILINE)
    assert len(rows) == 6
    for data, regulariser, cells in rows:
        section = log[log.index(f"## {data[0].upper()}{data[1:]}, three seeds") :].split("\n![")[0]
        runs = re.findall(rf"^\| (\d+) \| {regulariser} \|(.*)\|$", section, re.MULTILINE)
        found = {int(k): rest.split("|") for k, rest in runs}
        m = [np.mean([*map(int, found[k][0].split(","))]) for k in (512, 1024, 2048)]
        others = [float(found[1024][place].split()[0]) for place in (5, 6, 8, 9)]
        shown = [*map(value, cells.replace("|", "").split())]
        assert shown[:3] == pytest.approx(m, abs=0.5)
        assert shown[3:] == others
