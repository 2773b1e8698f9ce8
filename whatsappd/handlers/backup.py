"""`daemon.backup`: hand a backup to whoever asks, over the socket, for them to keep."""

from __future__ import annotations

from itertools import count
from typing import Any

from whatsappd.api.params import Params
from whatsappd.rpc.method import Call, Concerns, Method
from whatsappd.rpc.user_shares import by_user
from whatsappd.rules.bounds import BACKUPS, Places
from whatsappd.store.sqlite.backup import Backups


class BackupParams(Params):
    accounts: bool = False


class BackupApi:
    def __init__(self, backups: Backups) -> None:
        self._backups = backups
        self._ids = count(1)
        self.places = Places(BACKUPS)

    def methods(self) -> list[Method]:
        return [
            # It holds everybody's messages, and with accounts their keys.
            Method(
                "daemon.backup", BackupParams, self._backup, "All that is kept, as bytes.",
                writes=True, concerns=Concerns.ALL,
            ),
        ]  # fmt: skip

    async def _backup(self, call: Call, params: BackupParams) -> dict[str, Any]:
        """A consistent copy, made while everything goes on.

        The bytes come before the answer, as notifications `backup.data` with `backup` (a number,
        the same in all of them) and `data`, in order. They are the database (SQLite), or with
        `accounts` a tar archive of it and the companies' accounts. The answer has the number, how
        many bytes there were and their SHA-256: what does not fit it is no backup. `left_out` has
        the companies whose accounts could not be copied, with the reasons.

        A caller that reads slowly holds up nothing; one that reads nothing is dropped.

        Raises:
            TooManyRequests: others are under way.
            StoreFailed: there is no room for the copies.
        """
        number = next(self._ids)
        with self.places.place(by_user(call.peer)):
            async with self._backups.taken(with_accounts=params.accounts) as backup:
                async for chunk in backup.chunks():
                    await call.connection.notify("backup.data", {"backup": number, "data": chunk})
                return {
                    "backup": number,
                    "bytes": backup.bytes,
                    "sha256": backup.sha256,
                    "companies": backup.companies,
                    "left_out": dict(backup.left_out),
                }
