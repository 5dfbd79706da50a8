"""``python -m benchmarks.clusters``: how often an estimate of the number of clusters is right.

The rule was chosen on other seeds, below 1000; none of its numbers was chosen for the settings
called `fresh`. Answers are kept in a file, so that a stopped run goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.spatial.distance import pdist
from sklearn import datasets
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.metrics import pairwise_distances, silhouette_score
from threadpoolctl import threadpool_limits

from benchmarks.table import insert
from collapse_audit.clusters import LEAST_LEAD, LEAST_WIDTH, ClusterEstimate, estimate_clusters

Rows = npt.NDArray[np.float64]
Answers = dict[str, int | None]

_PAGE = Path(__file__).resolve().parent.parent / "docs" / "clusters.md"
_MARKS = ("<!-- rates:begin -->", "<!-- rates:end -->")
_HEAD_MARKS = ("<!-- heads:begin -->", "<!-- heads:end -->")
_FIRST_SEED, _SEEDS, _SEEDS_OF_RIVALS = 1000, 10, 2
_MOST = 40  # clusters that the rivals look for
_METHODS = {
    "ours": "collapse-audit",
    "plateau": "plateau and bootstraps alone",
    "gap": "gap statistic",
    "silhouette": "silhouette",
    "hdbscan": "HDBSCAN",
}
_DIMENSIONS, _COUNTS, _SEPARATIONS = (2, 8, 32), (2, 3, 5, 10, 30), (2, 3, 4, 6, 10)


@dataclass(frozen=True, slots=True)
class Setting:
    """Data with a known number of clusters, and the lines of the table that they count in."""

    name: str
    truth: int  # 1 for data without clusters
    groups: tuple[str, ...]
    make: Callable[[np.random.Generator], Rows]


def settings() -> Iterator[Setting]:
    """Every setting, those that played no part in the choice of the rule last."""
    for d, k, s, unequal in product(_DIMENSIONS, _COUNTS, _SEPARATIONS, (False, True)):
        sizes = "unequal" if unequal else "equal"
        groups = (f"separation {s}", f"{k} blobs", f"{sizes} sizes", f"dimension {d}")
        make = partial(_blobs, k=k, d=d, separation=s, unequal=unequal)
        yield Setting(f"{' '.join(groups)}", k, groups, make)
    for d, k in product((2, 8), (3, 5, 10)):
        yield Setting(
            f"scattered {k} {d}", k, ("blobs scattered at random",), partial(_scattered, k=k, d=d)
        )
    for noise in (0.05, 0.1):
        yield Setting(f"moons {noise}", 2, ("two moons",), partial(_moons, noise=noise))
    for name, truth in (("digits", 10), ("iris", 3), ("wine", 3), ("breast cancer", 2)):
        for scaled in (False, True):
            title = f"{name}, columns scaled" if scaled else name
            yield Setting(title, truth, (title,), partial(_real, name=name, scaled=scaled))
    for n, d in product((200, 1000), (2, 8, 32)):
        yield Setting(f"normal {n} {d}", 1, ("null: one Gaussian",), partial(_normal, n=n, d=d))
        yield Setting(f"sphere {n} {d}", 1, ("null: uniform sphere",), partial(_sphere, n=n, d=d))
        for df in (2, 3, 5):
            for kind, drawn in (("columns", _t_columns), ("rows", _t_rows)):
                name = f"t {kind} {df} {n} {d}"
                yield Setting(name, 1, ("null: Student t",), partial(drawn, df=df, n=n, d=d))
    for n, d in product((200, 1000), (2, 8, 32)):
        for name, null in (
            ("uniform cube", _cube),
            ("exponential columns", _exponential),
            ("long Gaussian", _long_gaussian),
            ("ring or shell", _shell),
        ):
            title = f"fresh null: {name}"
            yield Setting(f"{title} {n} {d}", 1, (title,), partial(null, n=n, d=d))
    for d, k in product((2, 8), (3, 5, 10)):
        for name, blobs in (
            ("stretched blobs", _stretched),
            ("blobs of unequal spread", _uneven),
            ("uniform blobs", _uniform_blobs),
        ):
            title = f"fresh: {name}, separation 10"
            yield Setting(f"{title} {k} {d}", k, (title,), partial(blobs, k=k, d=d))


# --- data ----------------------------------------------------------------------------------------


def _places(draw: np.random.Generator, k: int, d: int, separation: float) -> Rows:
    """Random centres, the nearest two of which are so far apart."""
    centres = draw.uniform(-10, 10, (k, d))
    places: Rows = centres * separation / pdist(centres).min()
    return places


def _blobs(
    draw: np.random.Generator, *, k: int, d: int, separation: float, unequal: bool = False
) -> Rows:
    """1000 samples of unit spread; unequal: the largest blob has ten times the smallest."""
    share = 10.0 ** (-np.arange(k) / (k - 1)) if unequal else np.ones(k)
    sizes = np.maximum(1, np.round(1000 * share / share.sum())).astype(int)
    state, places = int(draw.integers(2**31)), _places(draw, k, d, separation)
    rows: Rows = datasets.make_blobs(sizes.tolist(), centers=places, random_state=state)[0]
    return rows


def _scattered(draw: np.random.Generator, *, k: int, d: int) -> Rows:
    """What make_blobs gives by default: unit spread in a box of side 20, overlaps and all."""
    rows: Rows = datasets.make_blobs(1000, d, centers=k, random_state=int(draw.integers(2**31)))[0]
    return rows


def _moons(draw: np.random.Generator, *, noise: float) -> Rows:
    state = int(draw.integers(2**31))
    rows: Rows = datasets.make_moons(1000, noise=noise, random_state=state)[0]
    return rows


def _real(_draw: np.random.Generator, *, name: str, scaled: bool) -> Rows:
    rows: Rows = getattr(datasets, f"load_{name.replace(' ', '_')}")().data
    spread = rows.std(axis=0)
    return (rows - rows.mean(axis=0)) / np.where(spread > 0, spread, 1) if scaled else rows


def _normal(draw: np.random.Generator, *, n: int, d: int) -> Rows:
    return draw.normal(size=(n, d))


def _sphere(draw: np.random.Generator, *, n: int, d: int) -> Rows:
    rows = draw.normal(size=(n, d))
    sphere: Rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return sphere


def _t_columns(draw: np.random.Generator, *, df: int, n: int, d: int) -> Rows:
    return draw.standard_t(df, (n, d))


def _t_rows(draw: np.random.Generator, *, df: int, n: int, d: int) -> Rows:
    rows: Rows = draw.normal(size=(n, d)) / np.sqrt(draw.chisquare(df, (n, 1)) / df)
    return rows


def _cube(draw: np.random.Generator, *, n: int, d: int) -> Rows:
    return draw.uniform(size=(n, d))


def _exponential(draw: np.random.Generator, *, n: int, d: int) -> Rows:
    return draw.exponential(size=(n, d))


def _long_gaussian(draw: np.random.Generator, *, n: int, d: int) -> Rows:
    return draw.normal(size=(n, d)) * np.geomspace(10, 1, d)


def _shell(draw: np.random.Generator, *, n: int, d: int) -> Rows:
    return _sphere(draw, n=n, d=d) * draw.normal(1, 0.1, (n, 1))


def _stretched(draw: np.random.Generator, *, k: int, d: int) -> Rows:
    """One random map for all blobs, as in scikit-learn's examples of what k-means gets wrong."""
    return _blobs(draw, k=k, d=d, separation=10) @ draw.normal(size=(d, d))


def _uneven(draw: np.random.Generator, *, k: int, d: int) -> Rows:
    """Spreads from 0.4 to 1.6."""
    spread, state = draw.uniform(0.4, 1.6, k), int(draw.integers(2**31))
    places = _places(draw, k, d, 10)
    rows: Rows = datasets.make_blobs(1000, centers=places, cluster_std=spread, random_state=state)[
        0
    ]
    return rows


def _uniform_blobs(draw: np.random.Generator, *, k: int, d: int) -> Rows:
    """Uniform balls of unit standard deviation in each direction."""
    inside = _sphere(draw, n=1000, d=d) * draw.uniform(size=(1000, 1)) ** (1 / d) * np.sqrt(d + 2)
    rows: Rows = inside + np.repeat(_places(draw, k, d, 10), -(-1000 // k), axis=0)[:1000]
    return rows


# --- methods -------------------------------------------------------------------------------------


def answers(setting: Setting, seed: int, *, rivals: bool) -> Answers:
    """What each method says; ``None`` for no estimate."""
    rows = setting.make(np.random.default_rng([seed, *setting.name.encode()]))
    with threadpool_limits(1), warnings.catch_warnings(action="ignore"):
        found = estimate_clusters(rows, seed=seed)
        said: Answers = {"ours": found.clusters, "plateau": _plateau_alone(found)}
        if rivals:
            said["gap"] = _gap(rows, seed)
            said["silhouette"] = _silhouette(rows, seed)
            labels = HDBSCAN(copy=True).fit(rows).labels_
            said["hdbscan"] = int(labels.max()) + 1 or None
    return said


def _plateau_alone(found: ClusterEstimate) -> int | None:
    """The estimate without the two conditions on the shape of the parts."""
    if not found.plateaus:
        return None
    best, second = found.plateaus[0], found.plateaus[1:2]
    wide = best.width >= LEAST_WIDTH
    lead = all(best.width >= LEAST_LEAD * other.width for other in second)
    return best.clusters if wide and lead and 2 * best.votes > found.bootstraps else None


def _k_means(rows: Rows, k: int, seed: int) -> KMeans:
    return KMeans(k, n_init=2, random_state=seed).fit(rows)


def _gap(rows: Rows, seed: int) -> int:
    """Tibshirani, Walther and Hastie 2001: the first k whose gap the next does not beat."""
    draw = np.random.default_rng(seed)
    _, _, axes = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    turned = rows @ axes.T  # references are uniform in the box of the principal axes
    low, high = turned.min(axis=0), turned.max(axis=0)
    references = [draw.uniform(low, high, turned.shape) for _ in range(10)]
    previous = None
    for k in range(1, _MOST + 1):
        logs = np.log([_k_means(reference, k, seed).inertia_ for reference in references])
        gap = logs.mean() - np.log(_k_means(rows, k, seed).inertia_)
        if previous is not None and previous >= gap - logs.std() * np.sqrt(1 + 1 / len(logs)):
            return k - 1
        previous = gap
    return _MOST


def _silhouette(rows: Rows, seed: int) -> int:
    distances = pairwise_distances(rows)
    scores = {
        k: silhouette_score(distances, _k_means(rows, k, seed).labels_, metric="precomputed")
        for k in range(2, _MOST + 1)
    }
    return max(scores, key=lambda k: float(scores[k]))


# --- table ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rate:
    """How often a method was right, wrong and without an estimate."""

    right: int
    wrong: int
    none: int

    @classmethod
    def of(cls, said: Sequence[tuple[int, int | None]]) -> Rate:
        """Count pairs of truth and answer; no estimate and 1 are right where there are none."""
        none = sum(answer is None and truth > 1 for truth, answer in said)
        right = sum(answer == truth or (truth == 1 and answer is None) for truth, answer in said)
        return cls(right, len(said) - right - none, none)

    def __str__(self) -> str:
        total = self.right + self.wrong + self.none
        if not total:
            return "-"
        return " / ".join(f"{100 * n / total:.1f}" for n in (self.right, self.wrong, self.none))


def render(results: Sequence[tuple[Setting, Answers]]) -> str:
    """Right, wrong and no estimate in per cent, one line for each group of settings."""
    blobs = "all blobs with a chosen separation"
    lines_of_blobs = (
        blobs,
        *(f"separation {s}" for s in _SEPARATIONS),
        *(f"{k} blobs" for k in _COUNTS),
        *(f"dimension {d}" for d in _DIMENSIONS),
        "equal sizes",
        "unequal sizes",
    )
    groups: dict[str, list[tuple[int, Answers]]] = {group: [] for group in lines_of_blobs}
    for setting, said in results:
        kind = (blobs,) if len(setting.groups) > 1 else ()
        for group in (*kind, *setting.groups, "everything"):
            groups.setdefault(group, []).append((setting.truth, said))
    groups["everything"] = groups.pop("everything")
    lines = [
        f"| data | cases | {' | '.join(_METHODS.values())} |",
        f"|---|---:|{'---:|' * len(_METHODS)}",
    ]
    for group, cases in groups.items():
        rates = (
            str(Rate.of([(truth, said[name]) for truth, said in cases if name in said]))
            for name in _METHODS
        )
        lines.append(f"| {group} | {len(cases)} | {' | '.join(rates)} |")
    return "\n".join(lines) + "\n"


# --- trained heads -------------------------------------------------------------------------------


def heads() -> str:
    """The plateau of heads that were trained on separated blobs, beside that of the blobs."""
    from collapse_audit import HeadTrainingConfig, audit, load_prototypes, run_training

    lines = [
        "| clusters in the data | estimate from the data | objective | regulariser | M (0.025) | "
        "widest plateau of the head |",
        "|---:|---:|---|---|---:|---|",
    ]
    for truth in (10, 30):
        draw = np.random.default_rng(truth)
        rows = _blobs(draw, k=truth, d=16, separation=10)
        said = estimate_clusters(rows).clusters
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder) / "blobs.npz"
            np.savez(data, features=rows.astype(np.float32))
            for objective, regulariser in product(("dino", "sinkhorn"), ("none", "koleo-proto")):
                config = HeadTrainingConfig(
                    data=str(data), k=256, objective=objective, regulariser=regulariser
                )
                run = Path(folder) / f"{objective}_{regulariser}"
                run_training(config, run, quiet=True)
                head = run / "head.safetensors"
                unique = audit(head, sweep=False, nearest=False).num_unique
                lines.append(
                    f"| {truth} | {said or 'none'} | {objective} | {regulariser} | {unique} | "
                    f"{_plateau_of(load_prototypes(head).unit_rows())} |"
                )
    return "\n".join(lines) + "\n"


def _plateau_of(units: Rows) -> str:
    """The widest plateau of the components of all prototypes, 1 < m < K / 2."""
    from scipy.cluster.hierarchy import linkage

    # below 1e-9 the distances of near copies are rounding
    merges = np.maximum(linkage(units, "single")[:, 2] ** 2 / 2, 1e-9)[::-1]
    widths = {m: np.log(merges[m - 2] / merges[m - 1]) for m in range(2, len(units) // 2)}
    m = max(widths, key=lambda count: float(widths[count]))
    return f"{m}, a factor of {np.exp(widths[m]):.2f}"


# --- command -------------------------------------------------------------------------------------


def main() -> int:
    """Measure what is missing, print the tables, and write them into the page if asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=Path("clusters_results.jsonl"))
    parser.add_argument("--seeds", type=int, default=_SEEDS)
    parser.add_argument("--rivals", type=int, default=_SEEDS_OF_RIVALS, help="seeds of the rivals")
    parser.add_argument("--only", default="", help="settings whose name holds this")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--heads", action="store_true", help="train the heads instead (minutes)")
    parser.add_argument("--docs", action="store_true", help=f"write into {_PAGE.name}")
    options = parser.parse_args()
    text = heads() if options.heads else render(list(_measured(options)))
    print(text)
    if options.docs:
        marks = _HEAD_MARKS if options.heads else _MARKS
        _PAGE.write_text(insert(_PAGE.read_text("utf-8"), text, marks), "utf-8")
    return 0


def _measured(options: argparse.Namespace) -> Iterator[tuple[Setting, Answers]]:
    """Answers to every setting and seed, those of an earlier run first read from the file."""
    known: dict[tuple[str, int], Answers] = {}
    if options.results.exists():
        for line in options.results.read_text("utf-8").splitlines():
            kept = json.loads(line)
            known[kept["name"], kept["seed"]] = kept["answers"]
    chosen = {setting.name: setting for setting in settings() if options.only in setting.name}
    work = [
        (name, _FIRST_SEED + number)
        for number in range(options.seeds)
        for name in chosen
        if (name, _FIRST_SEED + number) not in known
    ]
    with ProcessPoolExecutor(options.processes) as pool, options.results.open("a") as file:
        call = partial(_case, rivals=_FIRST_SEED + options.rivals)
        for (name, seed), said in zip(work, pool.map(call, work, chunksize=4), strict=True):
            known[name, seed] = said
            file.write(json.dumps({"name": name, "seed": seed, "answers": said}) + "\n")
            file.flush()
    for (name, _seed), said in known.items():
        if name in chosen:
            yield chosen[name], said


def _case(case: tuple[str, int], *, rivals: int) -> Answers:
    name, seed = case
    (setting,) = (setting for setting in settings() if setting.name == name)
    return answers(setting, seed, rivals=seed < rivals)


if __name__ == "__main__":
    sys.exit(main())
