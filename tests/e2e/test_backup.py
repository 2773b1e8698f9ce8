"""A copy of the database while messages go on, and a daemon that goes on from the copy."""

from __future__ import annotations

import shutil
import stat

import pytest
import trio
from daemons import following, link, running_daemon

from whatsappd.errors import InvalidParams


async def test_a_daemon_goes_on_from_a_backup_made_under_load() -> None:
    async with running_daemon("--sandbox") as daemon:
        copy = daemon.directory / "copy.db"
        async with daemon.client() as client, following(client) as events:
            await link(client, events, "acme", "+15550100")
            await link(client, events, "globex", "+15550200")
            before = await client.call(
                "message.send", company="acme", to="+15550200", text="x", wait="delivered"
            )
            async with trio.open_nursery() as nursery:

                async def send() -> None:
                    for number in range(50):
                        await client.call(
                            "message.send", company="acme", to="+15550200", text=f"{number}"
                        )

                nursery.start_soon(send)
                answer = await client.call("daemon.backup", path=str(copy))
            assert answer == {"path": str(copy), "bytes": copy.stat().st_size}
            assert stat.S_IMODE(copy.stat().st_mode) == 0o600
            with pytest.raises(InvalidParams, match="exists"):
                await client.call("daemon.backup", path=str(copy))
            with pytest.raises(InvalidParams, match=r"^path: .* not absolute"):
                await client.call("daemon.backup", path="copy.db")
        # Restoring, as the README tells: stop, put the copy in place, start.
        assert await daemon.stop() == 0
        for leftover in daemon.state_dir.glob("whatsappd.db*"):
            leftover.unlink()
        shutil.copy(copy, daemon.state_dir / "whatsappd.db")
        await daemon.start()
        async with daemon.client() as client, following(client) as events:
            found = await client.call("message.get", id=before["id"])
            assert found["state"] == "delivered"
            # What waited then was sent since: nothing is sent a second time unasked.
            rows = (await client.call("message.list", limit=200))["rows"]
            assert not [row for row in rows if row["state"] in ("queued", "sending")]
            start = len(events.seen)
            row = await client.call(
                "message.send", company="acme", to="+15550200", text="again", wait="delivered"
            )
            assert row["state"] == "delivered", events.seen[start:]
