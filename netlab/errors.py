"""What can go wrong, and whose fault it is.

The tree, in the order of the classes below; the number is the exit code of the command line::

    NetlabError
     ├── UsageError            2   the caller's: an argument that makes no sense
     ├── TopologyError         2   the author's of a topology file: every problem, with its place
     ├── LabDefinitionError    2   the author's of a lab: guide, checks or variations do not fit
     ├── CaptureError          2   the file's: it cannot be read as a capture at all
     ├── RecordingError        2   the directory's: it is not a recording, or not a whole one
     ├── CapabilityError       4   the machine's: it cannot do what was asked; carries the remedy
     └── EngineError           5   a lab could not be built or run
          ├── OperationError   5   the kernel refused one operation of a plan
          ├── CommandError     5   a command in a node failed
          ├── NotReadyError    5   something that was waited for did not come
          └── DiskFullError    5   there is no room for the recording
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple


class NetlabError(Exception):
    """Anything netlab itself reports; `hint` says what to try, `exit_code` what the shell sees."""

    exit_code: ClassVar[int] = 5

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}; {self.hint}"


class UsageError(NetlabError):
    """The caller asked for something that makes no sense."""

    exit_code = 2


class Problem(NamedTuple):
    """One thing wrong with a text file, at a 1-based line and column.

    `file` is empty for the file that was asked for and names the file for what it included.
    """

    line: int
    column: int
    message: str
    file: str = ""


class TopologyError(NetlabError):
    """A topology file is wrong; holds every problem found, sorted by place."""

    exit_code = 2

    def __init__(self, file: str, problems: tuple[Problem, ...]) -> None:
        self.file = file
        self.problems = tuple(
            sorted(set(problems), key=lambda p: (p.file, p.line, p.column, p.message))
        )
        lines = (f"{p.file or file}:{p.line}:{p.column}: {p.message}" for p in self.problems)
        super().__init__("\n".join(lines))


class LabDefinitionError(NetlabError):
    """A lab's folder contradicts itself."""

    exit_code = 2


class CaptureError(NetlabError):
    """A file cannot be read as a capture at all; damage inside a capture is only a warning."""

    exit_code = 2


class RecordingError(NetlabError):
    """A directory is not a recording, or lacks what was asked of it."""

    exit_code = 2


class CapabilityError(NetlabError):
    """The machine cannot do what was asked; `hint` is the remedy."""

    exit_code = 4


class EngineError(NetlabError):
    """A lab could not be built or run."""

    exit_code = 5


class OperationError(EngineError):
    """The kernel refused one operation of a plan."""


class CommandError(EngineError):
    """A command in a node failed."""


class NotReadyError(EngineError):
    """Something that was waited for did not come in time."""


class DiskFullError(EngineError):
    """There is no room for the recording."""
