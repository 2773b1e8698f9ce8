"""A thread that runs blocking calls one after another.

whatsmeow serialises sends anyway, and a health check must not wait behind one: so each kind of
call has a `SerialThread` of its own.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class SerialThread:
    """Runs what it is given, in order, in a daemon thread that starts with the first call.

    A call that never returns blocks this thread only; the process does not wait for it at exit.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    def run(self, call: Callable[[], None]) -> None:
        """Queue `call`, which must not raise."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        self._calls.put(call)

    def _work(self) -> None:
        while True:
            self._calls.get()()
