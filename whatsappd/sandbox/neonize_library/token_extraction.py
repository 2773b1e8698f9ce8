"""Reads the token dictionary of stanzas out of the installed neonize library.

Taking it from the library means that the sandbox always speaks the dictionary of the version in
use. The Go library must not be loaded into the sandbox's own process; so the sandbox runs
`python -m whatsappd.sandbox.neonize_library.token_extraction LIBRARY FILE`, which loads it, writes
the dictionary to FILE as JSON and ends. The file's name has the library's size and time, so a new
library is read anew.

In the library's memory the dictionary is one Go array of strings, each 16 bytes (address, length):
236 tokens of one byte, then, adjacent, four times 256 tokens of two bytes (whatsmeow:
binary/token/token.go). It is found by the address of its second string, "xmlstreamstart".
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import struct
import sys
from pathlib import Path

from whatsappd.errors import SandboxFailed
from whatsappd.files import PRIVATE, write_file
from whatsappd.sandbox.neonize_library.memory_mappings import MemoryMapping, mappings_of
from whatsappd.sandbox.protocol.token_dictionary import (
    DOUBLE_TABLES,
    DOUBLE_TOKENS,
    FIRST_TOKEN,
    SINGLE_TOKENS,
    TokenDictionary,
)

_STRING_HEADER = struct.Struct("<QQ")  # Go's string: address, length


def library_path() -> Path:
    """The Go library of the installed neonize, found without importing neonize.

    Raises:
        SandboxFailed: neonize, or its library, is not installed.
    """
    spec = importlib.util.find_spec("neonize")
    if spec is None or not spec.submodule_search_locations:
        raise SandboxFailed("neonize is not installed: install this project's dependencies")
    folder = Path(next(iter(spec.submodule_search_locations)))
    libraries = sorted(folder.glob("neonize-*.so"))
    if len(libraries) != 1:
        raise SandboxFailed(
            f"{folder} holds {len(libraries)} Go libraries instead of one: reinstall neonize"
        )
    return libraries[0]


def cache_file(directory: Path, library: Path) -> Path:
    """The file in `directory` that keeps the dictionary of this very library."""
    status = library.stat()
    return directory / f"dictionary-{status.st_size}-{status.st_mtime_ns}.json"


def read_cache(file: Path) -> TokenDictionary | None:
    """The dictionary kept in `file`; None if the file does not exist or holds something else."""
    try:
        value = json.loads(file.read_text())
        dictionary = TokenDictionary(
            tuple(value["single"]), tuple(tuple(table) for table in value["double"])
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return dictionary if dictionary.is_whole else None


def extract_command(library: Path, file: Path) -> list[str]:
    """The command line that reads the dictionary out of `library` and writes it to `file`.

    It exits with 0, or with 1 and the reason on stderr.
    """
    module = "whatsappd.sandbox.neonize_library.token_extraction"
    return [sys.executable, "-P", "-m", module, str(library), str(file)]


def extract(library: Path) -> TokenDictionary:
    """The dictionary of a library, which this LOADS INTO THIS PROCESS.

    Raises:
        SandboxFailed: the library cannot be loaded, or has no array of strings that looks like the
            dictionary: this version is built differently.
    """
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        raise SandboxFailed(f"{library} cannot be loaded: {error}") from error
    mappings = [mapping for mapping in mappings_of(library) if mapping.readable]
    contents = [(mapping, mapping.read()) for mapping in mappings]
    for address in _addresses_of(FIRST_TOKEN.encode(), contents):
        header = _STRING_HEADER.pack(address, len(FIRST_TOKEN))
        for _, content in contents:
            position = content.find(header)
            while position >= _STRING_HEADER.size:
                # The array begins one string earlier: token 0 is empty.
                dictionary = _read_tables(content, position - _STRING_HEADER.size, contents)
                if dictionary is not None:
                    return dictionary
                position = content.find(header, position + 1)
    raise SandboxFailed(
        f"no token dictionary was found in {library.name}: "
        "this version of neonize is not one the sandbox knows"
    )


def _addresses_of(text: bytes, contents: list[tuple[MemoryMapping, bytes]]) -> list[int]:
    found = []
    for mapping, content in contents:
        position = content.find(text)
        while position >= 0:
            found.append(mapping.start + position)
            position = content.find(text, position + 1)
    return found


def _read_tables(
    content: bytes, position: int, contents: list[tuple[MemoryMapping, bytes]]
) -> TokenDictionary | None:
    """The dictionary whose array of strings begins at `position`; None if there is none."""
    total = SINGLE_TOKENS + DOUBLE_TABLES * DOUBLE_TOKENS
    if position + total * _STRING_HEADER.size > len(content):
        return None
    strings: list[str] = []
    for index in range(total):
        header_at = position + index * _STRING_HEADER.size
        address, length = _STRING_HEADER.unpack_from(content, header_at)
        text = _read_string(address, length, contents)
        if text is None:
            return None
        strings.append(text)
    dictionary = TokenDictionary(
        tuple(strings[:SINGLE_TOKENS]),
        tuple(
            tuple(strings[start : start + DOUBLE_TOKENS])
            for start in range(SINGLE_TOKENS, total, DOUBLE_TOKENS)
        ),
    )
    return dictionary if dictionary.is_whole else None


def _read_string(
    address: int, length: int, contents: list[tuple[MemoryMapping, bytes]]
) -> str | None:
    if length == 0:
        return ""
    for mapping, content in contents:
        if mapping.start <= address and address + length <= mapping.end:
            offset = address - mapping.start
            try:
                return content[offset : offset + length].decode()
            except UnicodeDecodeError:
                return None
    return None


def main(arguments: list[str]) -> int:
    """`LIBRARY FILE`: write the dictionary of LIBRARY to FILE, whole or not at all."""
    library, file = Path(arguments[0]), Path(arguments[1])
    try:
        dictionary = extract(library)
    except SandboxFailed as error:
        print(error.message, file=sys.stderr)
        return 1
    write_file(file, json.dumps(dictionary._asdict()).encode(), mode=PRIVATE)
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # The loaded Go runtime has threads of its own: leave without asking them.
    os._exit(code)
