"""`daemon.backup`: hand a backup to whoever asks, over the socket, for them to keep."""

from __future__ import annotations

from itertools import count
from typing import Any

from whatsappd.api import daemon as api
from whatsappd.rpc.method import Call, Method
from whatsappd.rpc.user_shares import by_user
from whatsappd.rules.bounds import BACKUPS, Places
from whatsappd.store.port import BackupMaker


class BackupApi:
    def __init__(self, backups: BackupMaker) -> None:
        self._backups = backups
        self._ids = count(1)
        self._places = Places(BACKUPS)

    def report(self) -> list[dict[str, Any]]:
        """For `daemon.limits`."""
        return [self._places.report()]

    def methods(self) -> list[Method]:
        return [
            Method(api.BACKUP, self._backup),
        ]

    async def _backup(self, call: Call, params: api.BackUp) -> api.BackupTaken:
        """Raises:
        TooManyRequests: others are under way.
        StoreFailed: there is no room for the copies.
        """
        number = next(self._ids)
        with self._places.place(by_user(call.peer)):
            async with self._backups.taken(with_accounts=params.accounts) as backup:
                async for chunk in backup.chunks():
                    await call.connection.notify("backup.data", {"backup": number, "data": chunk})
                return api.BackupTaken(
                    backup=number,
                    bytes=backup.bytes,
                    sha256=backup.sha256,
                    companies=backup.companies,
                    left_out=dict(backup.left_out),
                )
