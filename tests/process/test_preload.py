"""neonize is imported once, without its Go library and without what no worker uses."""

from __future__ import annotations

import subprocess
import sys

_PROGRAM = """
import sys
from whatsappd.engines.neonize.fork.preload import import_deferred
from whatsappd.engines.neonize.fork.import_stubs import UNUSED
import_deferred()
import neonize.client
print(sorted({name.partition(".")[0] for name in sys.modules} & set(UNUSED)))
try:
    neonize.client.link_preview("https://example.org")
except RuntimeError as error:
    print(error)
import segno
print(segno.make_qr("real").version)
"""


def test_what_no_worker_uses_is_not_imported_and_says_so_where_it_is_called() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines() == [
        "[]",
        "linkpreview.link_preview() was called, and is left out of whatsappd's workers",
        "1",
    ]
