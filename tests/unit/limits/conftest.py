"""A Redis server of our own, on a Unix socket in the test's directory."""

from __future__ import annotations

import gc
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis_process import RedisServer


@pytest.fixture
def redis_directory() -> Iterator[Path]:
    # Not tmp_path: the path of a Unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="wapd-") as directory:
        yield Path(directory)
    gc.collect()  # while the test's own filter of coredis' leaks still holds


@pytest.fixture
def redis_server(redis_directory: Path) -> Iterator[RedisServer]:
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not installed")
    server = RedisServer(redis_directory)
    server.start()
    try:
        yield server
    finally:
        server.kill()
