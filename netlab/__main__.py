"""`python -m netlab`, which works whatever else is called netlab on this machine.

The installed commands begin here too. Nothing is imported before Ctrl-C is caught (what CPython
does before it reads this file is beyond us), and the plain form of `netlab exec`, which scripts
call in loops, is recognised before the library that parses options is loaded: that takes longer
than all the rest of it.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing is the first import that takes time
    import signal as _signal
    from typing import NoReturn
else:
    import _signal  # the built-in part of `signal`, whose other half takes two milliseconds


def _interrupted(_number: int, _frame: object) -> None:
    """End at once: nothing has begun while modules are imported."""
    os.write(2, b"interrupted\n")
    os._exit(130)


def plain_exec(words: list[str]) -> tuple[str | None, str, list[str]] | None:
    """Read `exec [--lab NAME] NODE [--] COMMAND...`: lab, node, command; None for anything else."""
    if words[:1] != ["exec"]:
        return None
    lab, rest = None, words[1:]
    if rest[:1] == ["--lab"] and len(rest) > 1:
        lab, rest = rest[1], rest[2:]
    node, command = rest[:1], rest[1:]
    if command[:1] == ["--"]:
        command = command[1:]
    elif command and command[0].startswith("-"):
        return None
    if not node or node[0].startswith("-") or not command:
        return None
    return lab, node[0], command


def main() -> NoReturn:
    """Run the command line."""
    usual = _signal.default_int_handler
    caught = _signal.getsignal(_signal.SIGINT) is usual
    if caught:
        _signal.signal(_signal.SIGINT, _interrupted)
    plain = plain_exec(sys.argv[1:])
    if plain is not None:
        from netlab.engine.execute import run_plainly

        if caught:
            _signal.signal(_signal.SIGINT, usual)
        sys.exit(run_plainly(*plain))
    from netlab.cli import main as run

    if caught:
        _signal.signal(_signal.SIGINT, usual)
    run()


if __name__ == "__main__":
    main()
