"""What runs in trio, asked by tests that do not: a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

import trio

Subject = TypeVar("Subject")
PATIENCE = 20


class Live(Generic[Subject]):
    """Enters what `opened` gives, in a thread; `subject` is what that is.

    The thread does not keep the process: those that live as long as it need no end.
    """

    def __init__(self, opened: Callable[[], AbstractAsyncContextManager[Subject]]) -> None:
        self._opened = opened
        self._up = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._run,), daemon=True)
        self._thread.start()
        assert self._up.wait(PATIENCE)

    async def _run(self) -> None:
        async with self._opened() as self.subject:
            self._token = trio.lowlevel.current_trio_token()
            with trio.CancelScope() as self._scope:
                self._up.set()
                await trio.sleep_forever()

    def see(self, look: Callable[[], Any]) -> Any:
        return trio.from_thread.run_sync(look, trio_token=self._token)

    def run(self, function: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        """The result of an async function there, within PATIENCE seconds."""

        async def patiently() -> Any:
            with trio.fail_after(PATIENCE):
                return await function(*arguments)

        return trio.from_thread.run(patiently, trio_token=self._token)

    def until(self, condition: Callable[[], bool]) -> None:
        async def wait() -> None:
            while not condition():
                await trio.sleep(0.002)

        self.run(wait)

    def stop(self) -> None:
        self.see(self._scope.cancel)
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
