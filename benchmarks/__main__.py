"""``python -m benchmarks``: measure, check every answer, print and keep the tables."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks import inputs, plan, table
from benchmarks.agreement import DisagreementError, check_counts, check_nearest
from benchmarks.measure import MeasurementError, Sample, all_methods, measure, measure_apart
from benchmarks.methods import Answer, Method
from benchmarks.records import Record, Store, fingerprint, title, usable_cores
from benchmarks.reference import Reference

_HERE = Path(__file__).resolve().parent
_PAGE = _HERE.parent / "docs" / "benchmarks.md"
_LARGE = 262_144
# What takes longer than this is measured once; the rest in every round, one method after the other.
_ONCE_SECONDS = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks.

    Args:
        arguments: Those of the command line; the process's own if ``None``.

    Returns:
        0, or 1 if an answer is wrong or one of our own tasks failed.
    """
    options = _parse(arguments)
    run = _Run(options)
    try:
        records = [
            run.case(name, k, d)
            for d in options.d
            for k in options.k
            for name in options.input or plan.inputs(k, d)
        ]
    except (DisagreementError, MeasurementError) as error:
        print(f"FAILED: {error}", file=sys.stderr)
        return 1
    text = table.render(records, run.methods, threads=options.threads)
    (options.results / "table.md").write_text(text, encoding="utf-8")
    if options.docs:
        _PAGE.write_text(table.insert(_PAGE.read_text(encoding="utf-8"), text), encoding="utf-8")
    print(text)
    print(table.render_targets(records, run.methods), end="")
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the similarity engine beside its peers; every answer is checked.",
        epilog="A stopped run goes on where it was. Results of other code are measured again.",
    )
    known = list(inputs.INPUTS)
    parser.add_argument("--k", type=int, nargs="+", help="prototypes (default: 4096 65536)")
    parser.add_argument("--d", type=int, nargs="+", default=[256], help="dimension (default: 256)")
    parser.add_argument(
        "--input",
        nargs="+",
        choices=known,
        metavar="NAME",
        help=f"heads to measure, of {', '.join(known)} (default: the first two; all at K = 65,536)",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="METHOD",
        help="methods to measure, by the names in the result files",
    )
    parser.add_argument(
        "--full", action="store_true", help="measure every method on every input, not the plan"
    )
    parser.add_argument(
        "--peers",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="measure the other packages too (default: yes)",
    )
    parser.add_argument(
        "--rounds",
        type=int,
        default=3,
        help="rounds, for what takes less than five seconds (default: %(default)s)",
    )
    parser.add_argument(
        "--threads",
        type=int,
        default=usable_cores(),
        help="threads of each process (default: all cores, here %(default)s)",
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=600.0,
        help="seconds for one process (default: %(default)g)",
    )
    parser.add_argument(
        "--device",
        default="cpu",
        help="where our own tasks run: cpu, cuda, auto (default: %(default)s)",
    )
    parser.add_argument("--quick", action="store_true", help="K = 1024, one round: does it run?")
    parser.add_argument(
        "--large",
        action="store_true",
        help=f"allow K above {_LARGE:,}: minutes, and 3 GB of memory at 2^20 x 256",
    )
    parser.add_argument("--fresh", action="store_true", help="measure finished cases again")
    parser.add_argument(
        "--docs", action="store_true", help="write the tables into docs/benchmarks.md"
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=_HERE / "results",
        help="folder of the result files (default: benchmarks/results)",
    )
    parser.add_argument(
        "--in-process",
        action="store_true",
        help="no process per measurement; its memory and first times mean little",
    )
    options = parser.parse_args(arguments)
    options.k = options.k or ([1024] if options.quick else [4096, 65536])
    options.rounds = 1 if options.quick else options.rounds
    if max(options.k) > _LARGE and not options.large:
        parser.error(f"K above {_LARGE:,} takes minutes and gigabytes: add --large.")
    if min(options.k) < 64 or min(options.d) < 16:
        parser.error("K must be at least 64 and D at least 16.")
    return options


class _Run:
    """One run of the command: what is measured, where it is kept, and what was said so far."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._known = fingerprint([options.threads, options.device, options.in_process])
        self._store = Store(options.results, self._known)
        self.methods = [
            method
            for method in all_methods(options.device)
            if (options.peers or method.certified)
            and (options.only is None or method.name in options.only)
        ]
        for method in self.methods:
            if not method.installed:
                _say(f"left out, {method.package} is not installed: {method.label}")
        self.methods = [method for method in self.methods if method.installed]

    def case(self, name: str, k: int, d: int) -> Record:
        """Measure what is missing of a case."""
        record = None if self._options.fresh else self._store.load(name, k, d)
        wanted = [method for method in self.methods if self._suited(method, name, k, d)]
        if record is not None and not any(
            self._missing(record, method, self._options.rounds) for method in wanted
        ):
            _say(f"{record.title}: kept from an earlier run (--fresh measures again)")
            return record
        head = inputs.make(name, k, d)
        if record is None:
            _say(f"{title(name, k, d)}: reference")
            record = Record(name, k, d, self._known, Reference.of(head))
            self._store.save(record)
        with tempfile.TemporaryDirectory() as folder:
            rows_file = Path(folder) / "rows.npy"
            np.save(rows_file, head.rows)
            for number, method in self._pending(record, wanted):
                self._measure(record, method, rows_file, number)
        return record

    def _pending(self, record: Record, wanted: Sequence[Method]) -> Iterator[tuple[int, Method]]:
        """What to measure next; a round ends before the next one begins."""
        for number in range(1, self._options.rounds + 1):
            for method in wanted:
                if self._missing(record, method, number):
                    yield number, method

    def _missing(self, record: Record, method: Method, number: int) -> bool:
        """Whether a method still lacks its measurement of a round."""
        if method.name in record.failures:
            return False
        done = record.samples.get(method.name, [])
        once = bool(done) and done[0].wall > _ONCE_SECONDS
        return len(done) < (1 if once else number)

    def _suited(self, method: Method, name: str, k: int, d: int) -> bool:
        """Whether a method is to be measured on an input."""
        chosen = self._options.full or self._options.only is not None
        return k <= method.most and (chosen or plan.planned(method, name, k, d))

    def _measure(self, record: Record, method: Method, rows_file: Path, number: int) -> None:
        try:
            sample, answer = self._once(method, rows_file)
        except MeasurementError as error:
            if method.certified:
                raise
            record.failures[method.name] = str(error)
            _say(f"{record.title}: {error}")
        else:
            check_counts(method, answer, record.reference)
            if answer.distance is not None:
                self._check_distances(record, method, answer)
            record.samples.setdefault(method.name, []).append(sample)
            _say(
                f"{record.title}, round {number}: {method.label}: "
                f"{sample.wall:.3g} s, {sample.cpu:.3g} CPU s, {sample.peak_mb:.0f} MB"
            )
        self._store.save(record)

    def _once(self, method: Method, rows_file: Path) -> tuple[Sample, Answer]:
        options = self._options
        if options.in_process:
            return measure(method, np.load(rows_file), most_repeats=1)
        return measure_apart(
            method,
            rows_file,
            threads=options.threads,
            timeout=options.timeout,
            device=options.device,
        )

    def _check_distances(self, record: Record, method: Method, answer: Answer) -> None:
        """Compare the neighbours of ours with those of the peers, whichever came first."""
        assert answer.distance is not None
        self._store.keep_distances(record.title, method.name, answer.distance)
        for other in all_methods(self._options.device):
            if other.task != "nearest" or other.certified == method.certified:
                continue
            if other.name in record.samples:
                theirs = self._store.distances(record.title, other.name)
                assert theirs is not None
                if method.certified:
                    check_nearest(method, answer.distance, other, theirs, record.d)
                else:
                    check_nearest(other, theirs, method, answer.distance, record.d)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
