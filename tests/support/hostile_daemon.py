"""`whatsappd` with the fork server of `hostile_worker`: the wrapper of a `daemons.Daemon`."""

from __future__ import annotations

import sys

from whatsappd.cli import main
from whatsappd.engines.neonize import spawn

spawn._MODULE = "hostile_worker"
sys.argv = ["whatsappd", *sys.argv[4:]]  # behind this: python -m whatsappd
main()
