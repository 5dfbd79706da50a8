"""Files somewhere else -> bytes here: the only code of the package that opens connections.

Local paths need nothing of this. A remote file is a source of bytes like a local one, read in
parts where its server allows it; what was read is kept, with its checksum, in a cache that no
interruption can damage.
"""

from collapse_audit.remote.addresses import Remote, is_remote, remote_of_entry, remote_of_url
from collapse_audit.remote.locking import check_and_record
from collapse_audit.remote.maintenance import CacheItem, cache_items, clear_cache, verify_cache
from collapse_audit.remote.remote_source import open_source
from collapse_audit.remote.reporting import SILENT, Reporter
from collapse_audit.remote.settings import RemoteSettings
from collapse_audit.remote.whole_files import fetch_file, file_of_other_tools

__all__ = [
    "SILENT",
    "CacheItem",
    "Remote",
    "RemoteSettings",
    "Reporter",
    "cache_items",
    "check_and_record",
    "clear_cache",
    "fetch_file",
    "file_of_other_tools",
    "is_remote",
    "open_source",
    "remote_of_entry",
    "remote_of_url",
    "verify_cache",
]
