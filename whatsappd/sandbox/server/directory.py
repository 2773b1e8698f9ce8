"""The sandbox's directory: who holds it, and the keys and the token dictionary that are kept in it.

    lock            the process that uses the directory
    sandbox.db      accounts and undelivered stanzas (`state.database`)
    noise.json      Noise keys (`noise_keys`)
    ca.pem ca.key   the private CA; server.pem: the certificate of this run (`tls_certificates`)
    dictionary-…    the token dictionary of the installed neonize (`neonize_library`)

The directory has mode 0700, and what is secret in it mode 0600.
"""

from __future__ import annotations

import fcntl
import os
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from whatsappd.errors import SandboxFailed
from whatsappd.files import PRIVATE
from whatsappd.sandbox.neonize_library import token_extraction
from whatsappd.sandbox.protocol.noise import NoiseIdentity
from whatsappd.sandbox.protocol.token_dictionary import TokenDictionary
from whatsappd.sandbox.server.noise_keys import load_noise_identity
from whatsappd.sandbox.server.tls_certificates import load_authority, server_context

#: The mode of the directory.
_PRIVATE_DIRECTORY = 0o700
#: Seconds for reading the token dictionary out of the library. It takes half a second.
_DICTIONARY_DEADLINE = 30


@dataclass(frozen=True)
class ServerIdentity:
    """What proves to a client that this is the server: its certificates, TLS's and Noise's."""

    tls: ssl.SSLContext
    noise: NoiseIdentity
    ca_file: Path  # what clients must trust for TLS


@contextmanager
def held_directory(directory: Path) -> Iterator[None]:
    """Make the directory if need be, and hold its lock: two sandboxes would hand out keys twice.

    Raises:
        SandboxFailed: another sandbox holds it; the message names its process.
        OSError: it cannot be made or written.
    """
    directory.mkdir(mode=_PRIVATE_DIRECTORY, parents=True, exist_ok=True)
    directory.chmod(_PRIVATE_DIRECTORY)
    descriptor = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, PRIVATE)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip()
            raise SandboxFailed(
                f"another sandbox (process {holder or 'unknown'}) uses {directory}: "
                "stop it, or use another directory"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        os.close(descriptor)


def load_identity(directory: Path) -> ServerIdentity:
    """The keys and certificates in the directory, made and kept if there are none.

    Raises:
        SandboxFailed: a file is damaged.
        FileNotWritten: a new one cannot be written.
    """
    noise = load_noise_identity(directory / "noise.json")
    authority = load_authority(directory / "ca.pem", directory / "ca.key")
    context = server_context(authority, directory / "server.pem")
    return ServerIdentity(context, noise, (directory / "ca.pem").absolute())


async def load_dictionary(directory: Path) -> TokenDictionary:
    """The token dictionary of the installed neonize; read from its library if it is not kept yet.

    Raises:
        SandboxFailed: neonize is not installed, or is not as expected.
    """
    library = token_extraction.library_path()
    file = token_extraction.cache_file(directory, library)
    found = token_extraction.read_cache(file)
    if found is not None:
        return found
    command = token_extraction.extract_command(library, file)
    with trio.move_on_after(_DICTIONARY_DEADLINE):
        result = await trio.run_process(
            command, check=False, stdout=subprocess.DEVNULL, capture_stderr=True
        )
        found = token_extraction.read_cache(file)
        if found is None:
            reason = result.stderr.decode(errors="replace").strip()
            raise SandboxFailed(f"the stanza dictionary could not be read: {reason}")
        return found
    raise SandboxFailed(f"reading the stanza dictionary took more than {_DICTIONARY_DEADLINE} s")
