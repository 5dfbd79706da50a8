"""Where the cache is, and how patient the network code is."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_LOCK_NAME = "collapse_audit.lock"
_ON = frozenset({"1", "true", "yes", "on"})


@dataclass(frozen=True, slots=True)
class RemoteSettings:
    """How remote files are fetched and where they are kept."""

    cache_dir: Path  # folder of the cache; made when something is written
    offline: bool = False  # never open a connection; answer from the cache or fail
    insecure_http: bool = False  # allow plain ``http://``, where anybody can change the bytes
    max_bytes: int = 50 * 10**9  # largest file fetched whole; every public checkpoint is smaller
    stall_seconds: float = 30.0  # longest wait for the next byte
    limit_seconds: float = 4 * 3600.0  # for one file, with retries and waiting for others
    retries: int = 5  # after the first failure, of those that may pass
    backoff_seconds: float = 0.5  # wait before the first retry; doubles each time
    # Lock file of the project; ``None`` takes the one in the working directory if it is there, else
    # the one in the cache.
    lock_path: Path | None = None

    @classmethod
    def from_environment(
        cls,
        *,
        cache_dir: Path | None = None,
        offline: bool = False,
        insecure_http: bool = False,
        environ: Mapping[str, str] | None = None,
    ) -> RemoteSettings:
        """Settings of the command line, completed from the environment."""
        # COLLAPSE_AUDIT_CACHE names the folder, else it is the platform's; COLLAPSE_AUDIT_OFFLINE
        # and HF_HUB_OFFLINE turn offline on, and nothing insecure_http
        env = os.environ if environ is None else environ
        named = env.get("COLLAPSE_AUDIT_CACHE")
        chosen = cache_dir or (Path(named) if named else platform_cache_dir(env))
        switches = (env.get("COLLAPSE_AUDIT_OFFLINE"), env.get("HF_HUB_OFFLINE"))
        return cls(
            cache_dir=chosen.expanduser(),
            offline=offline or any((value or "").lower() in _ON for value in switches),
            insecure_http=insecure_http,
        )

    @property
    def lock_file(self) -> Path:
        """The lock file that counts: the project's, or the cache's if the project has none."""
        if self.lock_path is not None:
            return self.lock_path
        beside = Path.cwd() / _LOCK_NAME
        return beside if beside.is_file() else self.cache_dir / _LOCK_NAME


def platform_cache_dir(environ: Mapping[str, str], platform: str = sys.platform) -> Path:
    """The folder in which a program of this platform keeps what it can fetch again."""
    if platform == "win32" and environ.get("LOCALAPPDATA"):
        base = Path(environ["LOCALAPPDATA"])
    elif platform == "darwin":
        base = Path("~/Library/Caches").expanduser()
    else:
        base = Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    return base / "collapse-audit"
