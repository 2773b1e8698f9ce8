"""The info file: how to reach a running sandbox, as `--info FILE` writes it, in JSON.

Daemons read it for `--sandbox-at FILE`, and tests for clients of their own. Standard library only.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self

from whatsappd.errors import SandboxFailed
from whatsappd.files import PRIVATE, write_file


@dataclass(frozen=True)
class SandboxInfo:
    """How clients reach a running sandbox.

    A client uses `socks5://host:port` (or `http://host:port`) as its proxy, `ca_file` as
    SSL_CERT_FILE, and `noise_root` (32 bytes as hexadecimal digits) as the root key of Noise
    certificates (`neonize_library.noise_root`).
    """

    host: str
    port: int
    ca_file: str
    noise_root: str
    control: str | None = None  # path of the Unix socket with the sandbox's RPC, if it has one

    @property
    def proxy(self) -> str:
        """The proxy setting that leads a client to this sandbox, as a URL."""
        return f"socks5://{self.host}:{self.port}"

    @property
    def noise_root_bytes(self) -> bytes:
        """`noise_root` as 32 bytes. Raises ValueError if it is not hexadecimal."""
        return bytes.fromhex(self.noise_root)

    def as_wire(self) -> dict[str, Any]:
        """The fields as a dict of plain values, for JSON and RPC."""
        return asdict(self)

    @classmethod
    def from_wire(cls, value: Any) -> Self:
        """The inverse of `as_wire`; unknown members are ignored.

        Raises:
            SandboxFailed: a member is missing or has the wrong type or value; the message says
                which.
        """
        if not isinstance(value, dict):
            raise SandboxFailed("the description of a sandbox must be a JSON object")
        expected: dict[str, tuple[type, ...]] = {
            "host": (str,), "port": (int,), "ca_file": (str,), "noise_root": (str,),
            "control": (str, type(None)),
        }  # fmt: skip
        for name, types in expected.items():
            # Python's True is an int, but it is no port.
            if not isinstance(given := value.get(name), types) or isinstance(given, bool):
                raise SandboxFailed(f"the description of a sandbox lacks a valid {name!r}")
        known: dict[str, Any] = {field.name: value.get(field.name) for field in fields(cls)}
        info = cls(**known)
        try:
            root = info.noise_root_bytes
        except ValueError:
            root = b""
        if len(root) != 32 or not 0 < info.port < 65536:
            raise SandboxFailed("the description of a sandbox has a wrong noise_root or port")
        return info


def write_info(path: Path, info: SandboxInfo) -> None:
    """Write `info` to `path` as JSON, with mode 0600, whole or not at all.

    Raises:
        FileNotWritten: it cannot be written, or `path` is a link or no regular file.
    """
    content = json.dumps(info.as_wire(), indent=2) + "\n"
    write_file(path, content.encode(), mode=PRIVATE)


def read_info(path: Path) -> SandboxInfo:
    """Read the info file at `path`.

    Raises:
        SandboxFailed: the file does not exist, cannot be read, or describes no sandbox.
    """
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError:
        raise SandboxFailed(
            f"{path} does not exist: start a sandbox with `whatsappd sandbox --info {path}`"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise SandboxFailed(f"{path} cannot be read as the description of a sandbox") from error
    return SandboxInfo.from_wire(value)
