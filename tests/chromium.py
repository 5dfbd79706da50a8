"""Pages in a headless Chromium, driven by a script that is added to a copy of the page."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any, Final

import pytest

_NAMES: Final = ("chromium", "google-chrome", "google-chrome-stable")
_POLICY: Final = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')


def run_chromium(page: Path, *arguments: str) -> tuple[str, list[str]]:
    """What Chromium prints for a page, and what the page's console says; skips without it."""
    found = next(filter(None, map(shutil.which, _NAMES)), None)
    if found is None:
        pytest.skip("no chromium")
    command = [
        found, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-dev-shm-usage",
        "--disable-background-networking", "--enable-logging=stderr",
        f"--user-data-dir={page.parent / 'profile'}", *arguments, page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def ask(page: str, folder: Path, script: str, *arguments: str) -> Any:
    """What a script returns that runs behind the page's own, in a copy without its policy."""
    assert page.count("</body>") == len(_POLICY.findall(page)) == 1
    asking = f"<script>document.title = JSON.stringify((() => {{{script}}})());</script></body>"
    file = folder / "asked.html"
    file.write_text(_POLICY.sub("", page).replace("</body>", asking), encoding="utf-8")
    text, console = run_chromium(file, "--dump-dom", *arguments)
    assert console == []
    title = re.search("<title>(.*?)</title>", text, re.DOTALL)
    assert title is not None
    return json.loads(unescape(title[1]))
