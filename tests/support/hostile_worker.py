"""A fork server whose workers have been taken over: they run what a test puts into their directory.

All else is the real fork server and the real worker, confined as it confines itself. Used in its
place by `hostile_daemon`; `tests/e2e/test_confinement.py` says what is run. Nothing of this is in
the package, so no way into a worker is.
"""

from __future__ import annotations

import json
import os
import threading
import traceback
from typing import Any, NoReturn

from whatsappd.confinement import landlock, seccomp
from whatsappd.engines.neonize.fork import server
from whatsappd.engines.neonize.worker import confine, main
from whatsappd.engines.protocol import OpenClient

#: Pipes in a company's directory, which the test has made. A line of JSON and Python code go in,
#: the code's `result` comes out.
ORDERS, RESULTS = "orders", "results"
#: Names what is left out: a piece of the confinement ("landlock", "seccomp"), so that a test can
#: see that the attacks are real; or "preload". Workers get variables that begin so.
WITHOUT = "PYTHONTESTWITHOUT"


class TakenOver(main.WorkerServer):
    def _open(self, asked: OpenClient) -> None:
        super()._open(asked)
        threading.Thread(target=obey, daemon=True).start()


def obey() -> None:
    while True:
        try:
            with open(ORDERS) as orders:
                host, _, code = orders.read().partition("\n")
        except FileNotFoundError:
            return  # nobody has orders for this one
        space: dict[str, Any] = {"HOST": json.loads(host)}
        try:
            exec(code, space)
            result = space["result"]
        except BaseException:
            result = traceback.format_exc()
        with open(RESULTS, "w") as results:
            json.dump(result, results)


def leave_out(piece: str) -> None:
    def nothing(*_arguments: object, **_named: object) -> int:
        return 0

    if piece == "landlock":
        landlock.restrict_self = nothing  # type: ignore[assignment]
    elif piece == "seccomp":
        seccomp.install = nothing  # type: ignore[assignment]
        confine._restrict_calls = lambda _lacking: confine._NONE
    elif piece == "preload":
        server.import_deferred = no_preload


def no_preload() -> NoReturn:
    raise server.PreloadError("a test wants it so")


if __name__ == "__main__":
    leave_out(os.environ.get(WITHOUT, ""))
    main.WorkerServer = TakenOver  # type: ignore[misc]
    server.main()
