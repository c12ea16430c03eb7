"""`python -m netlab`, which works whatever else is called netlab on this machine.

The installed commands begin here too: nothing is imported before Ctrl-C is caught.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing is the first import that takes time
    from typing import NoReturn


def main() -> NoReturn:
    """Run the command line; Ctrl-C while it is still being imported is no traceback either."""
    try:
        from netlab.cli import main as run
    except KeyboardInterrupt:
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
