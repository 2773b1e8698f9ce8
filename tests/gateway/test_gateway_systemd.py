"""The guides' steps under a real systemd, with a real nginx: units, users, groups and modes."""

from __future__ import annotations

from pathlib import Path

import pytest
from documents import block
from nginx import needs_nginx
from real_systemd import run_under_systemd

# It boots a whole system: .ci/run has it beside load and chaos.
pytestmark = [needs_nginx, pytest.mark.endurance]

_NGINX = """\
user www-data;
events {{}}
http {{
{http}
    server {{
        listen 127.0.0.1:80;
{location}
    }}
}}
"""


#: What the container's own preparation has done, or what is for a person who is not there.
_NOT_HERE = ("python3 -m venv", "ln -s", "usermod -aG whatsappd alice")

SCRIPT = """\
cd /opt/source
{daemon}
{gateway}
until curl -sf http://127.0.0.1:8080/readyz; do sleep 0.2; done
{nginx}
until curl -sf http://127.0.0.1/readyz; do sleep 0.2; done
echo
KEY=$(whatsappctl keys create trial --scope admin)
echo "sessions: $(curl -sf -H "Authorization: Bearer $KEY" http://127.0.0.1/v1/sessions)"
stat -c '%a %U %G %n' /run/whatsappd /run/whatsappd-gateway /run/whatsappd-gateway/http.sock \
    /etc/whatsappd-gateway
runuser -u nobody -- curl -s --unix-socket /run/whatsappd-gateway/http.sock http://x/livez \
    && echo "nobody: came in" || echo "nobody: kept out"

# Its own TLS, and a certificate that is renewed.
certificate() {{
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=wa \
        -keyout /etc/whatsappd-gateway/key.pem -out /etc/whatsappd-gateway/cert.pem 2>/dev/null
    chgrp whatsappd-gateway /etc/whatsappd-gateway/*.pem
    chmod 0640 /etc/whatsappd-gateway/*.pem
}}
shown() {{
    openssl s_client -connect 127.0.0.1:8443 </dev/null 2>/dev/null | openssl x509 -serial -noout
}}
certificate
sed -i 's#--bind.*"#--bind 0.0.0.0:8443 --tls-cert /etc/whatsappd-gateway/cert.pem --tls-key \
/etc/whatsappd-gateway/key.pem"#' /etc/systemd/system/whatsappd-gateway.service.d/address.conf
systemctl daemon-reload
systemctl restart whatsappd-gateway
until curl -skf https://127.0.0.1:8443/readyz; do sleep 0.2; done
echo
before=$(shown) pid=$(systemctl show -P MainPID whatsappd-gateway)
certificate
systemctl reload whatsappd-gateway
until [ "$(shown)" != "$before" ]; do sleep 0.1; done
[ "$(systemctl show -P MainPID whatsappd-gateway)" = "$pid" ] && echo "reload: same process"
systemctl --no-pager --failed
systemctl stop whatsappd-gateway
ls -d /run/whatsappd-gateway 2>&1 || true
"""


def test_the_guides_steps_work_under_a_real_systemd(tmp_path: Path) -> None:
    configuration = _NGINX.format(http=block("nginx:http"), location=block("nginx:location"))
    daemon = "\n".join(
        line for line in block("systemd:daemon").splitlines() if not line.startswith(_NOT_HERE)
    )
    script = SCRIPT.format(
        daemon=daemon, gateway=block("systemd:gateway"), nginx=block("systemd:nginx")
    )
    printed = run_under_systemd(tmp_path, script, {"/etc/nginx/nginx.conf": configuration})
    assert 'sessions: {"sessions":[]}' in printed
    for place in (
        "750 whatsappd whatsappd /run/whatsappd",
        "750 whatsappd-gateway whatsappd-gateway /run/whatsappd-gateway",
        "660 whatsappd-gateway whatsappd-gateway /run/whatsappd-gateway/http.sock",
        "750 root whatsappd-gateway /etc/whatsappd-gateway",
    ):
        assert f"\n{place}\n" in printed
    assert "nobody: kept out" in printed
    assert "reload: same process" in printed
    assert "cannot access '/run/whatsappd-gateway'" in printed
