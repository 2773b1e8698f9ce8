"""A private nginx in front of a gateway, with the block that the gateway's guide shows."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
import trio
from daemons import PATIENCE
from documents import block
from gateways import Gateway, Stack

#: The gateway's socket in the guide.
SHOWN_SOCKET = "/run/whatsappd-gateway/http.sock"
#: Debian has it where a user's PATH does not lead.
NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")

needs_nginx = pytest.mark.skipif(NGINX is None, reason="there is no nginx: apt-get install nginx")


class Nginx(NamedTuple):
    port: int  # on every loopback address
    log: Path

    async def connect(self, source: str = "127.0.0.1") -> trio.SocketStream:
        """As a client with that address."""
        sock = trio.socket.socket()
        await sock.bind((source, 0))
        await sock.connect(("127.0.0.1", self.port))
        return trio.SocketStream(sock)


@contextmanager
def running_nginx(
    directory: Path, gateway: Path, *, locations: str = "", user: str = ""
) -> Iterator[Nginx]:
    """It serves plain HTTP at `/` as the guide's block says, and below `/wa/` as its text says.

    Args:
        gateway: the gateway's socket.
        locations: what stands beside the guide's block, for more rules.
        user: whom its workers run as, if root starts it; else root.
    """
    assert NGINX is not None
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    root = block("nginx:location").replace(SHOWN_SOCKET, str(gateway))
    below = root.replace("location / {", "location /wa/ {").replace(f"{gateway};", f"{gateway}:/;")
    below = below.replace('X-Forwarded-Prefix ""', "X-Forwarded-Prefix /wa")
    configuration = directory / "nginx.conf"
    configuration.write_text(
        f"""
{"user " + (user or "root root") + ";" if os.geteuid() == 0 else ""}
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr warn;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
{block("nginx:http")}
    server {{
        listen 127.0.0.1:{port};
        server_name wa.example;
{locations}
{root}
{below}
    }}
}}
"""
    )
    log = directory / "nginx.log"
    with (
        log.open("ab") as output,
        subprocess.Popen(
            [NGINX, "-e", "stderr", "-p", str(directory), "-c", str(configuration)],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
        ) as process,
    ):  # fmt: skip
        try:
            deadline = time.monotonic() + PATIENCE
            while not _listens(port):
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield Nginx(port, log)
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def behind_socket(stack: Stack, directory: Path, *arguments: str) -> Iterator[Path]:
    """A gateway on a Unix socket, for a proxy."""
    path = directory / "http.sock"
    gateway = Gateway(
        directory, stack.daemon.socket, "--bind", f"unix:{path}", "--behind-proxy", *arguments
    )
    with (
        gateway.log_file.open("ab") as log,
        subprocess.Popen(
            gateway.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        ) as process,
    ):
        try:
            deadline = time.monotonic() + PATIENCE
            while not (gateway.find_ready() and "daemon_reached" in gateway.log()):
                assert process.poll() is None, gateway.log()
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield path
        finally:
            process.terminate()
