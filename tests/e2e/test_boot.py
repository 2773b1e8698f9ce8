"""After a crash, all that was wanted comes back, and no company waits for another's trouble."""

from __future__ import annotations

import fcntl
import signal

import trio
from daemons import PATIENCE, following, link, running_daemon

GOOD = {"globex": "+15550200", "initech": "+15550300"}


async def test_a_company_that_hangs_or_fails_at_boot_holds_up_none_of_the_others() -> None:
    # One at a time: who is brought back behind the one that hangs must wait for it, but not long.
    async with running_daemon("--sandbox", "--set", "sessions.start_parallel=1") as daemon:
        async with daemon.client() as client, following(client) as events:
            for company, phone in {"hangs": "+15550100", "fails": "+15550101", **GOOD}.items():
                await link(client, events, company, phone)
            last = events.seen[-1]["seq"]
        await daemon.stop(signal.SIGKILL)
        companies = daemon.state_dir / "companies"
        with (companies / "hangs" / "worker.lock").open("w") as lock, trio.fail_after(PATIENCE):
            # Workers outlive the daemon by a moment; then its successor's waits for us.
            await trio.to_thread.run_sync(fcntl.flock, lock, fcntl.LOCK_EX)
            for path in (companies / "fails").glob("session.db*"):
                path.unlink()
            (companies / "fails" / "session.db").write_bytes(b"this is no database" * 1000)
            await daemon.start()
            async with daemon.client() as client, following(client, after=last) as events:
                for company in GOOD:
                    await events.state(company, "connected")
                failed = await events.state("fails", "backing_off")
                assert "not a database" in failed["data"]["cause"]
                await events.state("hangs", "starting")
                hanging = [e["data"]["state"] for e in events.seen if e["company"] == "hangs"]
                assert hanging[-1] == "starting"  # nobody ended that
                fcntl.flock(lock, fcntl.LOCK_UN)
                await events.state("hangs", "connected")
