"""`python -m whatsappd` is the `whatsappd` command.

`python -m` puts the working directory before all other places to import from. What lies there is
nobody's to trust, so it is taken out again, unless this very package was found there. Until then
nothing is imported that Python has not loaded by itself.
"""

import os
import sys

_OURS = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
if (
    __name__ == "__main__" and not sys.flags.safe_path and os.path.abspath(sys.path[0]) != _OURS  # noqa: PTH100
):
    del sys.path[0]

from whatsappd.cli import main  # noqa: E402 -- not before that

if __name__ == "__main__":
    main()
