"""The QR codes of one attempt to link an account: which one is shown, and whether they ran out."""

from __future__ import annotations

from typing import Any, NamedTuple

#: WhatsApp gives six codes: the first lives 60 s, the others 20 s each (whatsmeow's timing).
QR_CODES = 6
FIRST_QR_MS = 60_000
LATER_QR_MS = 20_000


class ShownCode(NamedTuple):
    """A code to scan. Times are epoch milliseconds; `number` counts the attempt's codes from 1."""

    qr: str
    since_ms: int
    expires_ms: int
    number: int

    def as_event(self) -> dict[str, Any]:
        return {"qr": self.qr, "expires_ms": self.expires_ms, "number": self.number}


class PairingCodes:
    """One session's. `code` is what can be scanned now, if anything."""

    def __init__(self) -> None:
        self.code: ShownCode | None = None
        self._count = 0

    @property
    def ran_out(self) -> bool:
        """Whether every code that WhatsApp gives was shown: nobody scanned."""
        return self._count >= QR_CODES

    def begin(self) -> None:
        """A new attempt begins: forget the codes of the one before."""
        self.code = None
        self._count = 0

    def show(self, qr: str, now_ms: int) -> ShownCode:
        """Show the next code of this attempt instead of the one before."""
        lifetime = LATER_QR_MS if self._count else FIRST_QR_MS
        self._count += 1
        self.code = ShownCode(qr, now_ms, now_ms + lifetime, self._count)
        return self.code

    def hide(self) -> None:
        """Show no code any more."""
        self.code = None
