"""A script on two ranks under torchrun, with gloo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

START = """
import datetime
import json
import os
import sys
import torch
import torch.distributed as dist
torch.set_num_threads(1)
# a rank that waits for one that never comes is stopped, and fails the test
dist.init_process_group("gloo", timeout=datetime.timedelta(seconds=40))
rank = dist.get_rank()
"""
END = """
sys.stdout.flush()
dist.barrier()
os._exit(0)  # a thread of gloo may end the interpreter with an abort
"""


def on_two_ranks(folder: Path, script: str) -> list[dict[str, Any]]:
    """What each rank of a script printed last: one line of JSON with its ``rank``."""
    path = folder / "script.py"
    path.write_text(START + script + END, encoding="utf-8")
    command = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node=2", "--log-dir", str(folder), "-r", "3", str(path)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240,
        check=False,
    )  # fmt: skip
    errors = "\n".join(log.read_text()[-2000:] for log in folder.rglob("stderr.log"))
    assert done.returncode == 0, errors + done.stderr[-2000:]
    lines = [log.read_text().splitlines()[-1] for log in folder.rglob("stdout.log")]
    return sorted((json.loads(line) for line in lines), key=lambda answer: answer["rank"])
