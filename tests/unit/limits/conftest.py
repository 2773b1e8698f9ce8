"""A Redis server of our own, on a Unix socket in the test's directory."""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis_process import RedisServer, running_redis


@pytest.fixture
def redis_directory() -> Iterator[Path]:
    # Not tmp_path: the path of a Unix socket has at most 107 bytes.
    with tempfile.TemporaryDirectory(prefix="wapd-") as directory:
        yield Path(directory)
    gc.collect()  # while the test's own filter of coredis' leaks still holds


@pytest.fixture
def redis_server(redis_directory: Path) -> Iterator[RedisServer]:
    with running_redis(redis_directory) as server:
        yield server
