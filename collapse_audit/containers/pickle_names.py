"""Which names in a pickle are known, which are unknown but harmless, and which mean harm.

None of them is ever imported. The table of harm serves the user, not the reader: a file that names
``os.system`` was made to attack whoever unpickles it.
"""

from __future__ import annotations

import re

# Part of every checkpoint: no reader needs to hear about them.
_KNOWN = re.compile(
    r"""collections\.(?:OrderedDict|Counter|defaultdict)
      | argparse\.Namespace
      | (?:__builtin__|builtins)\.(?:set|frozenset|bytearray|complex|dict|list|tuple|slice|object)
      | copyreg\._reconstructor | copy_reg\._reconstructor
      | _codecs\.encode
      | numpy\.(?:_core|core)\.multiarray\.(?:scalar|_reconstruct)
      | numpy\.(?:dtype|ndarray|dtypes\..*)
      | pathlib\..*
      | torch\.(?:Size|Tensor|device|dtype|Generator|strided|contiguous_format|preserve_format
                |\w+Storage|b?float\w*|q?u?int\w*|complex\w*|double|half|long|short|bool)
      | torch\._utils\._rebuild_(?:tensor|parameter|device_tensor_from|from_type)\w*
      | torch\._tensor\._rebuild_from_type_v2
      | torch\.nn\.parameter\.(?:Parameter|Buffer)
      | torch\.storage\.(?:Untyped|Typed)Storage
      | torch\.serialization\._get_layout
      | torch\.distributed\.checkpoint\.\w+\.\w+
      | torch\.jit\._pickle\.\w+ | __torch__\..*""",
    re.VERBOSE,
)

# Modules from which a checkpoint needs nothing.
_HARMFUL_MODULES = frozenset({
    "os", "posix", "nt", "sys", "subprocess", "shutil", "runpy", "pty", "socket", "ctypes",
    "importlib", "imp", "pickle", "_pickle", "cPickle", "marshal", "shelve", "code", "codeop",
    "webbrowser", "pdb", "bdb", "timeit", "trace", "cProfile", "profile", "pydoc", "doctest",
    "commands", "popen2", "multiprocessing", "asyncio", "pip", "ensurepip", "venv", "distutils",
    "idlelib", "lib2to3", "httplib", "urllib2", "ftplib", "smtplib", "telnetlib", "xmlrpc",
    "requests", "httpx", "aiohttp", "mmap", "sqlite3",
})  # fmt: skip
_HARMFUL_BUILTINS = frozenset({
    "eval", "exec", "execfile", "compile", "open", "file", "__import__", "input", "raw_input",
    "breakpoint", "apply", "globals", "locals", "vars", "delattr", "setattr", "exit", "quit",
    "help", "memoryview",
})  # fmt: skip
_HARMFUL_NAMES = re.compile(
    r"""torch\.(?:hub|utils\.(?:cpp_extension|bottleneck)|_inductor|_dynamo|_export)\b.*
      | torch\.(?:load|serialization\.load|jit\.load|package\..*)
      | numpy\.(?:testing|distutils|f2py)\b.* | numpy\.(?:load|fromfile|memmap|save\w*)
      | joblib\..*load | dill\..*load\w* | cloudpickle\.loads? | yaml\..*load\w*
      | urllib\.request\b.* | http\.client\b.*
      | pandas\.(?:eval|read_pickle) | types\.(?:CodeType|FunctionType)
      | operator\.(?:attrgetter|methodcaller)""",
    re.VERBOSE,
)


def is_known(name: str) -> bool:
    """Whether checkpoints are full of a dotted name, so that nobody needs to hear about it."""
    return _KNOWN.fullmatch(name) is not None


def means_harm(module: str, name: str) -> bool:
    """Whether only an attack needs a name, such as ``os.system`` or ``builtins.eval``."""
    if module in {"builtins", "__builtin__", "__builtins__"}:
        return name.partition(".")[0] in _HARMFUL_BUILTINS
    return (
        module.partition(".")[0] in _HARMFUL_MODULES
        or _HARMFUL_NAMES.fullmatch(f"{module}.{name}") is not None
    )
