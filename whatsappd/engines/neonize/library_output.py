"""Finds the lines of neonize and Go that matter: Go's reason for a crash, and noise to drop."""

from __future__ import annotations

import re

from whatsappd.engines.child_output import readable

#: Noise that neonize prints at every start, of no use to anybody.
_NOISE = b"Press Ctrl+C to exit"
#: How Go says that it ends the process. What it quotes came from elsewhere, and is left out.
_CRASHES = (b"panic: ", b"fatal error: ")
_CRASH = re.compile(r"(panic|fatal error): .+")
_QUOTED = re.compile(r"""(["'`]).*\1""")
MAX_CRASH = 200


class LibraryOutput:
    """An `engines.child_output.OutputWatch` of one process."""

    def __init__(self) -> None:
        self.crash: str | None = None

    def sees(self, line: bytes) -> bool:
        if self.crash is None and line.startswith(_CRASHES):
            text = readable(line)
            if _CRASH.match(text):
                self.crash = _QUOTED.sub("…", text)[:MAX_CRASH]
        return not line.lstrip().startswith(_NOISE)
