"""QR codes for terminals and files. Loaded by `start` and `qr` only, because segno is."""

from __future__ import annotations

import io
import sys
from typing import Any

import segno

from whatsappd.files import PRIVATE, write_file

#: Light modules around the code. The standard wants 4; phones are content with 2, and a code that
#: fits on the screen is worth more.
BORDER = 2
PNG_SCALE = 8

_ON_WHITE = "\x1b[38;5;16;48;5;231m"
_RESET = "\x1b[0m"


def drawn(text: str, *, color: bool) -> str:
    """The code in half blocks, two rows of modules to a line.

    Args:
        color: black on white whatever the terminal's colours are; otherwise light modules are
            drawn and dark ones left out, as a dark terminal needs it.
    """
    rows = [list(row) for row in _code(text).matrix_iter(border=BORDER)]
    if len(rows) % 2:
        rows.append([0] * len(rows[0]))
    lines = []
    for upper, lower in zip(rows[::2], rows[1::2], strict=True):
        pairs = zip(upper, lower, strict=True)
        if color:
            line = "".join(" ▄▀█"[2 * bool(top) + bool(bottom)] for top, bottom in pairs)
            lines.append(f"{_ON_WHITE}{line}{_RESET}")
        else:
            lines.append("".join("█▀▄ "[2 * bool(top) + bool(bottom)] for top, bottom in pairs))
    return "\n".join(lines)


def write_png(text: str, path: str) -> None:
    """Write the code as PNG; `-` is stdout. A file is its owner's only: whoever scans it is in.

    Raises:
        FileNotWritten: it cannot be written, or must not be.
    """
    image = io.BytesIO()
    _code(text).save(image, kind="png", scale=PNG_SCALE, border=4)
    if path == "-":
        sys.stdout.buffer.write(image.getvalue())
    else:
        write_file(path, image.getvalue(), mode=PRIVATE)


def _code(text: str) -> Any:
    # The least error correction gives the smallest code, and a screen is neither torn nor dirty.
    return segno.make(text, error="l")
