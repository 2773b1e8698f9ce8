"""How to reach a sandbox: what `--info FILE` writes and `--sandbox-at FILE` reads.

Standard library only: workers read it, too.
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
    """A running sandbox.

    Clients use `socks5://host:port` (or `http://host:port`) as their proxy, `ca_file` as
    SSL_CERT_FILE, and `noise_root` (hex) as the root key of Noise certificates (`trust`).
    """

    host: str
    port: int
    ca_file: str
    noise_root: str
    control: str | None = None  # the Unix socket of its RPC, if it has one

    @property
    def proxy(self) -> str:
        """The proxy setting that leads a client here."""
        return f"socks5://{self.host}:{self.port}"

    @property
    def noise_root_bytes(self) -> bytes:
        return bytes.fromhex(self.noise_root)

    def as_wire(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_wire(cls, value: Any) -> Self:
        """Raises: SandboxFailed: the value is no such description; the message says why."""
        if not isinstance(value, dict):
            raise SandboxFailed("the description of a sandbox must be a JSON object")
        expected: dict[str, tuple[type, ...]] = {
            "host": (str,), "port": (int,), "ca_file": (str,), "noise_root": (str,),
            "control": (str, type(None)),
        }  # fmt: skip
        for name, types in expected.items():
            # A truth value is an int to Python, and no port.
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
    """Write `info` to `path` as JSON, whole or not at all.

    Raises:
        FileNotWritten: it cannot be written, or `path` is a link or no regular file.
    """
    content = json.dumps(info.as_wire(), indent=2) + "\n"
    write_file(path, content.encode(), mode=PRIVATE)


def read_info(path: Path) -> SandboxInfo:
    """The sandbox that `path` describes.

    Raises:
        SandboxFailed: there is no such file, or it is something else.
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
