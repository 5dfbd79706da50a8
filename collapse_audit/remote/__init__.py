"""Files somewhere else -> bytes here: the only code of the package that opens connections.

Local paths need nothing of this. A remote file is read in parts where its server allows it; what
was read is kept, with its checksum, in a cache that no interruption can damage.
"""

from collapse_audit.remote.addresses import Remote, is_remote, remote_of_entry, remote_of_url
from collapse_audit.remote.locking import check_and_record
from collapse_audit.remote.maintenance import (
    CacheItem,
    Verdict,
    cache_items,
    clear_cache,
    verify_cache,
)
from collapse_audit.remote.opening import open_remote, try_mirrors
from collapse_audit.remote.remote_files import FileVersion, RangesUnusableError, RemoteFile
from collapse_audit.remote.reporting import SILENT, Reporter, megabytes
from collapse_audit.remote.settings import StorageSettings
from collapse_audit.remote.tensor_store import SAFETENSORS_TYPES, StoredBytes, TensorStore
from collapse_audit.remote.whole_files import cached_file, fetch_file, file_of_other_tools
from collapse_audit.remote.writing import discard, exclusive, fetch_part

__all__ = [
    "SAFETENSORS_TYPES",
    "SILENT",
    "CacheItem",
    "FileVersion",
    "RangesUnusableError",
    "Remote",
    "RemoteFile",
    "Reporter",
    "StorageSettings",
    "StoredBytes",
    "TensorStore",
    "Verdict",
    "cache_items",
    "cached_file",
    "check_and_record",
    "clear_cache",
    "discard",
    "exclusive",
    "fetch_file",
    "fetch_part",
    "file_of_other_tools",
    "is_remote",
    "megabytes",
    "open_remote",
    "remote_of_entry",
    "remote_of_url",
    "try_mirrors",
    "verify_cache",
]
