"""Import neonize without its Go library, so that processes can be forked from the result.

A process that has loaded a Go runtime must not fork: the runtime's threads do not exist in the
child, which hangs. Importing neonize loads the library, and costs 0.3 s and 40 MB. So the fork
server imports everything with a `DeferredLibrary` in the library's place, which records how
neonize declares each function; a worker, after the fork, opens the real library and replays the
declarations (a few milliseconds), and the other 40 MB stay shared.

neonize is unmodified: the one call it makes to open the library, `ctypes.CDLL`, is answered with
the stand-in for the duration of the import.
"""

from __future__ import annotations

import ctypes
import importlib
import importlib.util
import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from whatsappd.engines.neonize.fork.import_stubs import leaving_out_unused

_ATTRIBUTES = ("argtypes", "restype", "errcheck")


class PreloadError(Exception):
    """neonize could not be imported with its library deferred: import it plainly instead."""


class _Declaration:
    """What was declared of one function before the library was there."""

    def __init__(self, answer: Any = None) -> None:
        self._answer = answer

    def __call__(self, *_arguments: object) -> Any:
        if self._answer is None:
            raise PreloadError("neonize called into its library while being imported")
        return self._answer


class DeferredLibrary:
    """Stands in for `ctypes.CDLL(path)` until `load` opens it.

    Attributes that are not loaded yet are recorded declarations; afterwards they are the library's
    own functions, found once and kept.
    """

    def __init__(self, path: str, version: str) -> None:
        self.path = path
        self._declared: dict[str, _Declaration] = {
            # neonize asks the library for its version, to find a library of another release.
            "GetVersion": _Declaration(version.encode())
        }
        self._real: ctypes.CDLL | None = None

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if self._real is None:
            return self._declared.setdefault(name, _Declaration())
        function = getattr(self._real, name)
        self.__dict__[name] = function
        return function

    def load(self) -> ctypes.CDLL:
        """Open the library and replay what was declared. Call it once, after the last fork.

        Raises:
            OSError: the library cannot be opened.
            AttributeError: it lacks a function that neonize declared.
        """
        real = ctypes.CDLL(self.path)
        for name, declaration in self._declared.items():
            declared = vars(declaration)
            # neonize sets `errcheck` for every name it ever had, and tolerates those now missing.
            if "argtypes" not in declared and "restype" not in declared and not hasattr(real, name):
                continue
            function = getattr(real, name)
            for attribute in _ATTRIBUTES:
                if attribute in declared:
                    setattr(function, attribute, declared[attribute])
        self._real = real
        return real


def library_path() -> Path:
    """The Go library of the installed neonize, found without importing it.

    Raises:
        PreloadError: neonize is not installed, or brings no library for this platform.
    """
    spec = importlib.util.find_spec("neonize")
    for location in (spec.submodule_search_locations or []) if spec else []:
        for candidate in sorted(Path(location).glob("neonize-linux-*.so")):
            return candidate
    raise PreloadError("the Go library of neonize is not installed")


def import_deferred() -> DeferredLibrary:
    """Import all of neonize that a worker uses, leaving its Go library unopened.

    The process has no thread but its own afterwards.

    Raises:
        PreloadError: this neonize does not load its library in the way known here. The process is
            not fit to be forked from with neonize imported; start a fresh one.
    """
    path = str(library_path())
    importlib.import_module("pylibmagic")  # must come first: it points python-magic at libmagic
    libraries: list[DeferredLibrary] = []
    real_cdll = ctypes.CDLL

    def open_library(name: Any, *arguments: Any, **keywords: Any) -> Any:
        if name != path:
            return real_cdll(name, *arguments, **keywords)
        download = importlib.import_module("neonize.download")
        libraries.append(DeferredLibrary(path, download.__GONEONIZE_VERSION__))
        return libraries[0]

    ctypes.CDLL = open_library  # type: ignore[assignment, misc]
    try:
        with leaving_out_unused(), _answering_uname():
            importlib.import_module("neonize.client")
    except Exception as error:
        raise PreloadError(f"{type(error).__name__}: {error}") from error
    finally:
        ctypes.CDLL = real_cdll  # type: ignore[misc]
    if len(libraries) != 1:
        raise PreloadError(f"the library was opened {len(libraries)} times, not once")
    stop_log_thread()
    if threading.active_count() != 1:
        raise PreloadError(f"threads are left: {threading.enumerate()}")
    return libraries[0]


def prepare_import() -> None:
    """Import what is needed by neonize and does, at its import, what workers may not.

    python-magic starts `ldconfig`, and urllib3 binds a socket to see whether there is IPv6.
    """
    importlib.import_module("pylibmagic")  # must come first: it points python-magic at libmagic
    importlib.import_module("magic")
    importlib.import_module("urllib3")


def import_plainly() -> None:
    """Import neonize, its Go library included: in a worker, where `import_deferred` failed."""
    with _answering_uname():
        importlib.import_module("neonize.client")


@contextmanager
def _answering_uname() -> Iterator[None]:
    """neonize starts a shell for `uname -a`, to find out whether it runs on Android. Workers may
    start no program, and of the fork server's shells zombies are left: it is told directly."""

    def answer(_command: str, *_arguments: object) -> io.StringIO:
        return io.StringIO(" ".join(os.uname()))

    real_popen = os.popen
    os.popen = answer  # type: ignore[assignment]
    try:
        yield
    finally:
        os.popen = real_popen


def stop_log_thread() -> None:
    """End the thread that neonize starts at import (its own way to end it hangs for ever)."""
    log = importlib.import_module("neonize.utils.log")
    log._log_queue.put(None)
    log._thread.join(timeout=5)
    log._log_queue.task_done()  # which the thread forgets for what ends it


def start_log_thread() -> None:
    """Start neonize's log thread again, in a process forked after `stop_log_thread`."""
    log = importlib.import_module("neonize.utils.log")
    threading.Thread(target=log._worker, name="neonize-log", daemon=True).start()
