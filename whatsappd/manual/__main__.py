"""`python -m whatsappd.manual`: for those who change the guides, and for the build of the package.

renew           write the generated tables in the guides anew
man DIRECTORY   write the man pages: DIRECTORY/man1/whatsappctl.1, man7/whatsappd-sending.7 …
"""

from __future__ import annotations

import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    match arguments:
        case ["renew"]:
            renew()
        case ["man", directory]:
            from whatsappd.manual.man_pages import write_man_pages

            write_man_pages(Path(directory))
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


def renew() -> None:
    """Write the generated tables anew, in all guides."""
    from whatsappd.manual.generated import renewed
    from whatsappd.manual.topics import TOPICS, path_of, read

    for topic in TOPICS:
        text = read(topic)
        if (new := renewed(text)) != text:
            path_of(topic).write_text(new, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
