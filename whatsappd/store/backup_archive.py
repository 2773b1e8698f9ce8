"""The archive that `backup --with-accounts` makes: a tar file, and how it is read again with care.

Members, in this order: each company's account (`companies/NAME/session.db`), the database
(`whatsappd.db`), and `manifest.json`, which has everybody's size and SHA-256. It comes last: an
archive without it was cut off. `store.sqlite.backup` writes it, `whatsappd.restore` reads it.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from whatsappd.errors import BadBackup, WhatsappdError
from whatsappd.model.company import validate_company

#: Grows when an older `whatsappd restore` could not read it.
FORMAT = 1
MANIFEST = "manifest.json"
DATABASE = "whatsappd.db"
_KIND = "whatsappd backup"
#: A manifest has about 150 bytes for each company.
_MAX_MANIFEST = 16 << 20
_CHUNK = 1 << 20
#: Two blocks of zeros end a tar file (POSIX.1-2001, pax).
END = bytes(2 * tarfile.BLOCKSIZE)


class FileEntry(NamedTuple):
    """One file of the archive: its size in bytes and its SHA-256 in hex."""

    bytes: int
    sha256: str


class Manifest(NamedTuple):
    """What the archive says of itself. `created_ms` is epoch milliseconds, `mode` real or sandbox,
    `schema` the number of the database's last migration."""

    version: str
    created_ms: int
    mode: str
    schema: int
    files: dict[str, FileEntry]

    @property
    def companies(self) -> list[str]:
        """Those whose accounts are in it."""
        return sorted(name.split("/")[1] for name in self.files if name != DATABASE)

    def as_json(self) -> bytes:
        files = {name: entry._asdict() for name, entry in self.files.items()}
        whole = {"kind": _KIND, "format": FORMAT, "companies": self.companies}
        return json.dumps({**whole, **self._asdict(), "files": files}, indent=1).encode()


def account_name(company: str) -> str:
    """The archive's name for a company's account."""
    return f"companies/{company}/session.db"


def header(name: str, size: int, time_ms: int) -> bytes:
    """What stands before a file's content."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o600, time_ms // 1000
    return info.tobuf(tarfile.PAX_FORMAT)


def padding(size: int) -> bytes:
    """What stands behind the content of a file of `size` bytes."""
    return bytes(-size % tarfile.BLOCKSIZE)


def unpack(file: BinaryIO, target: Path) -> Manifest:
    """Unpacks the archive into the empty directory `target`, and checks all of it.

    Nothing is written but files of the names that an archive has, each once: whatever else is in
    it, such as links, other paths or devices, is refused.

    Raises:
        BadBackup: it is no such archive, was cut off or changed, or a newer version made it.
        OSError: it cannot be read, or written.
    """
    found: dict[str, FileEntry] = {}
    manifest: Manifest | None = None
    try:
        with tarfile.open(fileobj=file, mode="r|") as archive:
            for member in archive:
                if manifest is not None or not member.isreg() or member.name in found:
                    raise BadBackup(f"it holds {member.name!r:.100}, which no archive of ours does")
                content = archive.extractfile(member)
                assert content is not None
                if member.name == MANIFEST:
                    manifest = _manifest(content.read(_MAX_MANIFEST))
                else:
                    found[member.name] = _write(content, _place(member.name, target))
    except (tarfile.TarError, EOFError) as error:
        raise BadBackup(f"it is damaged, or was cut off ({error})") from error
    if manifest is None:
        raise BadBackup("it was cut off: its end is missing")
    if found != manifest.files or DATABASE not in found:
        changed = sorted(
            name
            for name in found.keys() | manifest.files.keys()
            if found.get(name) != manifest.files.get(name)
        )
        raise BadBackup(f"its checksums do not fit: {', '.join(changed)[:200] or 'no database'}")
    return manifest


def _place(name: str, target: Path) -> Path:
    if name == DATABASE:
        return target / DATABASE
    parts = name.split("/")
    try:
        if len(parts) == 3 and name == account_name(validate_company(parts[1])):
            path = target / name
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            return path
    except WhatsappdError:
        pass
    raise BadBackup(f"it holds {name!r:.100}, which no archive of ours does")


def _write(content: Any, path: Path) -> FileEntry:
    digest, size = hashlib.sha256(), 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        while chunk := content.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return FileEntry(size, digest.hexdigest())


def _manifest(text: bytes) -> Manifest:
    try:
        given = json.loads(text)
        if given["kind"] != _KIND:
            raise BadBackup("it is another program's archive")
        if given["format"] > FORMAT:
            raise BadBackup(
                f"a newer whatsappd ({given['version']:.40}) made it: restore it with that one"
            )
        files = {str(name): FileEntry(**entry) for name, entry in given["files"].items()}
        version, mode = str(given["version"]), str(given["mode"])
        return Manifest(version, int(given["created_ms"]), mode, int(given["schema"]), files)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadBackup(f"its manifest cannot be read ({error!r:.100})") from error
