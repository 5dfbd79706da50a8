"""Files that mean harm end in a right result or in one clear line, soon and in little memory."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from collapse_audit.cli import main
from tests.hostile_files import KINDS, NAMES, D, Hostile, K

SECONDS, MEGABYTES = 60, 500  # 2 s is the most on a quiet machine; a hang has no end
#: What must be said of the files beside the repository; of those left out, a result or a line.
SHARED = {
    "hang_ordereddict_repeated.pth": "over 1,500,000 operations",
    "int_shape_20000_bits.pth": "not a natural number",
    "npz_header_bomb.npz": "unpacks to 1,600.0 MB",
    "npz_lzma_damaged.npz": "compressed in a way that neither torch nor numpy uses",
    "pkl_BUILD_set__other_storage.pth": "gives a tensor other values",
    "pkl_numel_larger_than_member__last.pth": "its storage has only 192 bytes",
    "pkl_scale_of_-1_x_0.pth": "not a natural number",
    "pkl_scale_of_zero_x_2_62.pth": "0 weight-norm scales",
    "st_60000_dimensions.safetensors": "over 64 dimensions",
    "st_long_keys.safetensors": "overlaps another tensor",
    "st_offset_10e400.safetensors": "natural numbers",
    "st_u64_beside.safetensors": "no prototypes in this file",
    "zip_DATA_PKL.pth": "in two spellings",
    "zip_bitflip.pth": "its checksum is not that of the directory",
    "zip_case_Aa.pth": "in two spellings",
    "zip_numel_48.pth": "its storage has only 128 bytes",
    "zip_two_directories.pth": "two directories",
    "zip_two_directories_bomb.pth": "two directories",
}


@pytest.fixture(scope="session")
def shared_hostile(repository: Path) -> Path:
    folder = repository.parent / "shared" / "hostile"
    if not (folder / "today.json").is_file():
        pytest.skip("no hostile files beside the repository")
    return folder


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Exit code, output and errors of the command line, which must not hang."""
    began = time.process_time()
    code = main(arguments)
    assert time.process_time() - began < SECONDS
    out, err = capsys.readouterr()
    assert code in (0, 2)
    assert "internal error" not in err
    if code == 2:
        assert re.fullmatch(r"error: .{20,2000}\n", err)
    else:
        assert "error" not in err
    return code, out, err


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_a_file_that_means_harm_is_read_or_refused_in_one_line(
    kind: Hostile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(kind.build(tmp_path))
    code, out, err = run(capsys, "audit", path, "--format", "json")
    assert (code == 2) == bool(kind.says)
    assert re.search(kind.says, err)
    document = json.loads(out)
    if not kind.says:
        heads = [(head["k"], head["d"]) for head in document["heads"]]
        assert heads == [(K * D, 1)] if "stride" in kind.name else [(K, D)]
    code, out, err = run(capsys, "info", path)
    assert (code == 2) == bool(kind.says and not kind.described)
    assert re.search(kind.says, err) or kind.described


def test_the_files_beside_the_repository_are_read_or_refused_in_one_line(
    shared_hostile: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [path for path in sorted(shared_hostile.glob("*.*")) if path.name != "today.json"]
    assert SHARED.keys() <= {path.name for path in paths}
    for path in paths:
        code, out, err = run(capsys, "audit", str(path), "--format", "json")
        says = SHARED.get(path.name, "")
        assert (code == 2) == bool(says), path.name
        assert re.search(says, err), path.name
        if not says:
            (head,) = json.loads(out)["heads"]
            sizes = {
                "pkl_stride_2_62_where_size_1.pth": (48, 1),
                "st_scale_spread.safetensors": (4, 4),
            }
            assert (head["k"], head["d"]) == sizes.get(path.name, (12, 4)), path.name
        run(capsys, "info", str(path), "--all")


def is_safe(text: str) -> bool:
    """Whether it neither moves a cursor nor gives an order to a CI runner."""
    lines = text.split("\n")
    return all(line.isprintable() for line in lines) and not any(
        line.lstrip().startswith("::") or "##[" in line for line in lines
    )


@pytest.mark.parametrize("what", NAMES)
@pytest.mark.parametrize("form", ["table", "csv", "markdown", "html"])
def test_a_name_is_only_a_name_wherever_it_is_printed(
    what: str, form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(KINDS[f"a name that is {what}"].build(tmp_path))
    code, out, err = run(capsys, "audit", path, "--format", form)
    assert code == 0
    assert is_safe(out)
    assert is_safe(err)
    if form == "csv":
        (row,) = csv.DictReader(io.StringIO(out))
        assert not any(cell.startswith(("=", "+", "-", "@")) for cell in row.values() if cell[1:])
    if form == "html":
        assert "<script>alert" not in out


@pytest.mark.parametrize("what", NAMES)
def test_a_name_is_only_a_name_in_a_description(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(KINDS[f"a name that is {what}"].build(tmp_path))
    assert is_safe(run(capsys, "info", path, "--all")[1])
    (head,) = json.loads(run(capsys, "info", path, "--json")[1])["heads"]
    assert run(capsys, "audit", path, "--head", head["tensor_keys"][0])[0] == 0


CHILD = """
import re, sys
from pathlib import Path
from collapse_audit.cli import main
for path in sys.argv[1:]:
    for command in ("info", "audit"):
        main([command, path])
        # not getrusage: its peak counts the parent that forked this process
        peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
        print("\\n@", int(peak) // 1024, command, path)
assert "torch" not in sys.modules
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells the peak there")
def test_none_of_them_needs_much_memory(tmp_path: Path, repository: Path) -> None:
    paths = []
    for number, kind in enumerate(KINDS.values()):
        (tmp_path / str(number)).mkdir()
        paths.append(str(kind.build(tmp_path / str(number))))
    beside = repository.parent / "shared" / "hostile"
    paths += [str(path) for path in beside.glob("*.*") if path.suffix != ".json"]
    command = [sys.executable, "-c", CHILD, *paths]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=1800)
    peaks = [line.split(" ", 2) for line in done.stdout.splitlines() if line.startswith("@ ")]
    assert len(peaks) == 2 * len(paths)
    assert [f"{peak} MB: {what}" for _, peak, what in peaks if int(peak) > MEGABYTES] == []
    assert len(KINDS) > 80
