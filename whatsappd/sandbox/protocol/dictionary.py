"""The token dictionary of binary stanzas, read from the installed neonize library.

WhatsApp compresses stanzas with a table of common strings that changes with the version in its
stream header. Taking it from the installed library's memory means that the sandbox speaks the
dictionary of the version in use. Loading Go into the sandbox's own process would be wrong, so
`python -m whatsappd.sandbox.protocol.dictionary` does it in a process that ends at once, and `load`
keeps the result in a file named by the library's size and time.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import struct
import sys
from pathlib import Path
from typing import NamedTuple

from whatsappd.errors import SandboxFailed
from whatsappd.sandbox.protocol.loaded_libraries import Mapping, mappings_of
from whatsappd.sandbox.protocol.secret_files import write_private

#: The tables in the library, adjacent: 236 tokens of one byte, then four times 256 of two.
SINGLE_TOKENS = 236
DOUBLE_TABLES = 4
DOUBLE_TOKENS = 256

_FIRST = "xmlstreamstart"  # token 1; token 0 is empty
_SECOND = "xmlstreamend"
_FIRST_DOUBLES = ["read-self", "active", "fbns"]

_STRING_HEADER = struct.Struct("<QQ")  # Go's string: address, length


class Dictionary(NamedTuple):
    """`single[n]` is what byte n means; `double[t][n]` what table t's byte n does."""

    single: tuple[str, ...]
    double: tuple[tuple[str, ...], ...]


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
    """Where the dictionary of this very library is kept."""
    status = library.stat()
    return directory / f"dictionary-{status.st_size}-{status.st_mtime_ns}.json"


def read_cache(file: Path) -> Dictionary | None:
    """The dictionary kept in `file`, or None if there is none (or an unusable one)."""
    try:
        value = json.loads(file.read_text())
        dictionary = Dictionary(
            tuple(value["single"]), tuple(tuple(table) for table in value["double"])
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return dictionary if _is_whole(dictionary) else None


def extract_command(library: Path, file: Path) -> list[str]:
    """The command that reads the dictionary out of `library` and writes it to `file`."""
    return [
        sys.executable,
        "-P",
        "-m",
        "whatsappd.sandbox.protocol.dictionary",
        str(library),
        str(file),
    ]


def extract(library: Path) -> Dictionary:
    """The dictionary of a library, which this LOADS INTO THIS PROCESS.

    Raises:
        SandboxFailed: it cannot be loaded, or the tables are not where they were in all versions
            seen so far.
    """
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        raise SandboxFailed(f"{library} cannot be loaded: {error}") from error
    mappings = [mapping for mapping in mappings_of(library) if mapping.readable]
    contents = [(mapping, mapping.read()) for mapping in mappings]
    for address in _addresses_of(_FIRST.encode(), contents):
        header = _STRING_HEADER.pack(address, len(_FIRST))
        for _, content in contents:
            position = content.find(header)
            while position >= _STRING_HEADER.size:
                dictionary = _read_tables(content, position - _STRING_HEADER.size, contents)
                if dictionary is not None:
                    return dictionary
                position = content.find(header, position + 1)
    raise SandboxFailed(
        f"no token dictionary was found in {library.name}: "
        "this version of neonize is not one the sandbox knows"
    )


def _addresses_of(text: bytes, contents: list[tuple[Mapping, bytes]]) -> list[int]:
    found = []
    for mapping, content in contents:
        position = content.find(text)
        while position >= 0:
            found.append(mapping.start + position)
            position = content.find(text, position + 1)
    return found


def _read_tables(
    content: bytes, position: int, contents: list[tuple[Mapping, bytes]]
) -> Dictionary | None:
    total = SINGLE_TOKENS + DOUBLE_TABLES * DOUBLE_TOKENS
    if position + total * _STRING_HEADER.size > len(content):
        return None
    strings: list[str] = []
    for index in range(total):
        address, length = _STRING_HEADER.unpack_from(content, position + index * 16)
        text = _read_string(address, length, contents)
        if text is None:
            return None
        strings.append(text)
    dictionary = Dictionary(
        tuple(strings[:SINGLE_TOKENS]),
        tuple(
            tuple(strings[start : start + DOUBLE_TOKENS])
            for start in range(SINGLE_TOKENS, total, DOUBLE_TOKENS)
        ),
    )
    return dictionary if _is_whole(dictionary) else None


def _read_string(address: int, length: int, contents: list[tuple[Mapping, bytes]]) -> str | None:
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


def _is_whole(dictionary: Dictionary) -> bool:
    return (
        len(dictionary.single) == SINGLE_TOKENS
        and dictionary.single[:3] == ("", _FIRST, _SECOND)
        and len(dictionary.double) == DOUBLE_TABLES
        and all(len(table) == DOUBLE_TOKENS for table in dictionary.double)
        and list(dictionary.double[0][: len(_FIRST_DOUBLES)]) == _FIRST_DOUBLES
    )


def main(arguments: list[str]) -> int:
    """`LIBRARY FILE`: write the dictionary of LIBRARY to FILE, atomically."""
    library, file = Path(arguments[0]), Path(arguments[1])
    try:
        dictionary = extract(library)
    except SandboxFailed as error:
        print(error.message, file=sys.stderr)
        return 1
    write_private(file, json.dumps(dictionary._asdict()).encode())
    return 0


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # The loaded Go runtime has threads of its own: leave without asking them.
    os._exit(code)
