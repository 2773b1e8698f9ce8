"""A wall clock that jumps, in a real daemon: nothing else of the host changes.

`install` gives a daemon that is yet to be started a `sitecustomize`; from then on, the file that it
returns holds by how many milliseconds the daemon's wall clock is off.
"""

from __future__ import annotations

from pathlib import Path

_SITE = """
import sys
if "whatsappd" in sys.orig_argv and "run" in sys.orig_argv:
    import time, types
    import whatsappd.clock as clock
    from pathlib import Path
    file = Path({file!r})
    def time_ns():
        return time.time_ns() + int(file.read_text() or 0) * 1_000_000
    clock.time = types.SimpleNamespace(**{{**vars(time), "time_ns": time_ns}})
    import whatsappd.sessions.clock_watch as watch
    watch.LOOK_EVERY_S = 0.2
"""


class WallClock:
    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self._file = directory / "clock-is-off-by"
        self._file.write_text("0")
        (directory / "sitecustomize.py").write_text(_SITE.format(file=str(self._file)))
        environment["PYTHONPATH"] = str(directory)

    def set_off(self, *, days: float) -> None:
        """The wall clock is so many days ahead from now on."""
        new = self._file.with_name("new")
        new.write_text(str(round(days * 24 * 3600 * 1000)))
        new.replace(self._file)
