"""Workers of the real unit, under a real systemd: confined, working, and seen by the daemon."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from documents import block
from real_systemd import run_under_systemd

#: What the container's own preparation has done, or what is for a person who is not there.
_NOT_HERE = ("python3 -m venv", "ln -s", "usermod")

SCRIPT = """\
cd /opt/source
mkdir -p /etc/systemd/system/whatsappd.service.d
printf '[Service]\\nExecStart=\\nExecStart=/opt/whatsappd/bin/whatsappd run --sandbox\\n' \\
    > /etc/systemd/system/whatsappd.service.d/sandbox.conf
{daemon}
for name in acme globex; do whatsappctl start $name --no-wait; done
whatsappctl wait acme --for pairing --timeout 30
whatsappctl wait globex --for pairing --timeout 30
whatsappctl sandbox scan acme --phone +15550100
whatsappctl sandbox scan globex --phone +15550200
whatsappctl wait acme --timeout 30
whatsappctl wait globex --timeout 30
echo
echo "sent: $(whatsappctl send acme +15550200 hello --wait delivered --json)"
echo "status: $(whatsappctl status --json)"
whatsappctl metrics | grep '^whatsappd_worker_private_memory_bytes{{' || echo "no memory is seen"
whatsappctl metrics | grep '^whatsappd_worker_refused_calls_total{{' || echo "nothing was refused"
worker=$(whatsappctl status acme --json | grep -o '"worker_pid": *[0-9]*' | grep -o '[0-9]*')
grep -E '^(Seccomp|NoNewPrivs|CapEff|Uid)' /proc/$worker/status
systemctl stop whatsappd.socket whatsappd.service
"""


@pytest.mark.endurance  # it boots a whole system
def test_workers_are_confined_under_a_real_systemd(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYSTEMD_SECCOMP", "0")  # the container's own filter knows no Landlock
    steps = block("systemd:daemon").splitlines()
    daemon = "\n".join(line for line in steps if not line.startswith(_NOT_HERE))
    printed = run_under_systemd(tmp_path, SCRIPT.format(daemon=daemon))
    assert re.search(r'sent: .*"state": *"delivered"', printed)
    assert re.search(r'"lacking": *null', printed)
    assert re.search(r'"landlock": *[1-9]', printed)
    for company in ("acme", "globex"):
        assert re.search(rf'private_memory_bytes{{company="{company}"}} [1-9]', printed)
    assert "\nnothing was refused\n" in printed
    assert re.search(r"^NoNewPrivs:\s+1$", printed, re.MULTILINE)
    assert re.search(r"^Seccomp:\s+2$", printed, re.MULTILINE)
    assert re.search(r"^CapEff:\s+0+$", printed, re.MULTILINE)
    assert not re.search(r"^Uid:\s+0\b", printed, re.MULTILINE)
