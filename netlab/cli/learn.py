"""`netlab lab learn NAME`: a guide step by step, with questions before the run and a look after it.

The guide (netlab/labs/guide.py) says what comes; this module shows it and asks. It works on any
terminal, and with a pipe as its input: then what was read is printed too, so that the output reads
like a terminal's, and the end of the input ends the session where it is.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console, RenderableType
from rich.markdown import Markdown
from rich.table import Table
from rich.text import Text

from netlab.errors import NetlabError, UsageError
from netlab.labs import answers, guide, judge, learner
from netlab.labs.guide import Guide, Question, Step

if TYPE_CHECKING:
    from netlab.labs.lab import Lab
    from netlab.labs.runner import Settings
    from netlab.recording import Recording

HELP = """\
Enter      go on (at a question: pass it over)
back       the step before this one
hint       a hint, where there is one
steps      the list of steps; `go 7` jumps to one
again      show this step again
restart    from the beginning, answers forgotten
quit       end here; the next `netlab lab learn` goes on from this step"""

WIDEST = 100
COMMANDS = ("back", "hint", "steps", "again", "restart", "quit", "help", "?")


class Leave(Exception):  # noqa: N818 - no error: the learner has had enough for now
    """The learner leaves, or the input has ended."""


class Jump(Exception):  # noqa: N818 - no error: the learner goes elsewhere
    """The learner goes to another step."""

    def __init__(self, step: int) -> None:
        super().__init__(step)
        self.step = step


class Terminal:
    """Where a learner reads and types."""

    def __init__(self) -> None:
        stream = sys.stdout
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")
        self.console = Console(highlight=False, soft_wrap=False)
        self.width = min(self.console.width, WIDEST)
        self.unicode = "utf" in (stream.encoding or "").lower()
        self._echo = not sys.stdin.isatty()

    def show(self, what: RenderableType = "") -> None:
        """Print text, Markdown or a table within the width."""
        self.console.print(what, width=self.width)

    def plain(self, text: str) -> None:
        """Print text as it is, line by line."""
        self.console.print(text, markup=False, soft_wrap=True)

    def ask(self, prompt: str) -> str:
        """Return a line that was typed; Leave at the end of the input."""
        sys.stdout.flush()
        try:
            line = input(f"{prompt} > ").strip()
        except EOFError:
            print()
            raise Leave from None
        if self._echo:
            print(line)
        return line


class Session:
    """One learner in one lab."""

    def __init__(
        self,
        lab: Lab,
        settings: Callable[[], Settings],
        terminal: Terminal,
        progress: learner.Progress,
    ) -> None:
        self.lab = lab
        self._settings = settings
        self.terminal = terminal
        self.progress = progress
        self.guide: Guide = guide.load(lab)
        self.progress.step = max(0, min(progress.step, len(self.guide.steps) - 1))

    # -- going from step to step ----------------------------------------------------------------

    def play(self) -> None:
        """Go from step to step until the guide ends or the learner leaves."""
        self._welcome()
        while self.progress.step < len(self.guide.steps):
            try:
                self._step(self.guide.steps[self.progress.step])
                self.progress.step += 1
            except Jump as jump:
                self.progress.step = jump.step
            if self.progress.step < len(self.guide.steps):
                self.save()
        learner.forget(self.lab.name, os.environ)

    def save(self) -> None:
        """Keep how far the learner has come."""
        learner.save(self.lab.name, self.progress, os.environ)

    def _welcome(self) -> None:
        self.terminal.show(Text(self.guide.title, style="bold"))
        count = len(self.guide.steps)
        if self.progress.step:
            told = f"You are at step {self.progress.step + 1} of {count}. `restart` begins anew."
        else:
            told = f"{count} steps. Enter goes on, `help` shows what else you can type."
        self.terminal.show(Text(told, style="dim"))

    def _step(self, step: Step) -> None:
        terminal = self.terminal
        number = f"{self.progress.step + 1}/{len(self.guide.steps)}"
        mark = "─" if terminal.unicode else "-"
        terminal.show()
        head = f"{mark * 2} {number} {step.title} "
        terminal.show(Text(head + mark * max(0, terminal.width - len(head)), style="bold"))
        terminal.show()
        play = {
            "predict": self._predict,
            "run": self._run,
            "compare": self._compare,
            "look": self._look,
            "explain": self._explain,
            "next": self._next,
        }.get(step.kind, self._read)
        play(step)

    def command(self, line: str, question: Question | None = None) -> bool:
        """Do what a line asks for if it is a command; return False if it is none."""
        word, _, rest = line.partition(" ")
        if word == "go" and re.fullmatch(r"\d+", rest):
            number = int(rest)
            if 1 <= number <= len(self.guide.steps):
                raise Jump(number - 1)
            self.terminal.show(f"There are {len(self.guide.steps)} steps.")
        elif line not in COMMANDS:
            return False
        elif line == "back":
            raise Jump(max(0, self.progress.step - 1))
        elif line == "again":
            raise Jump(self.progress.step)
        elif line == "restart":
            self.progress.answers.clear()
            raise Jump(0)
        elif line == "quit":
            raise Leave
        elif line == "steps":
            for number, step in enumerate(self.guide.steps, 1):
                here = ">" if number == self.progress.step + 1 else " "
                self.terminal.plain(f"{here} {number:2}  {step.title}")
        elif line == "hint":
            hints = question.hints if question else ()
            for hint in hints:
                self._markdown(hint)
            if not hints:
                self.terminal.show("There is no hint here.")
        else:
            self.terminal.plain(HELP)
        return True

    def go_on(self, prompt: str = "Enter: go on", question: Question | None = None) -> str:
        """Wait for Enter; what else is typed is a command, or is returned."""
        while True:
            line = self.terminal.ask(prompt)
            if not line:
                return ""
            if not self.command(line, question):
                return line

    def pause(self, prompt: str = "Enter: go on") -> None:
        """Wait for Enter, whatever else is typed."""
        while self.go_on(prompt):
            self.terminal.show("Type Enter to go on, or `help`.")

    # -- the steps --------------------------------------------------------------------------------

    def _read(self, step: Step) -> None:
        self._markdown(step.markdown)
        self.pause()

    def _predict(self, step: Step) -> None:
        question = step.question
        if question is None:
            self._read(step)
            return
        self._ask(question)
        known = self.progress.answers.get(question.text)
        if known is not None:
            self.terminal.show(Text(f"Your answer so far: {known}", style="dim"))
        while True:
            line = self.go_on(_prompt(question), question)
            if not line:
                return
            wrong = answers.valid(question, line)
            if not wrong:
                self.progress.answers[question.text] = line
                return
            self.terminal.show(Text(f"{wrong[0].upper()}{wrong[1:]}."))

    def _ask(self, question: Question) -> None:
        self._markdown(guide.fill(question.text, self._figures()[0]))
        for letter, words in question.choices:
            text = Table.grid(padding=(0, 2))
            text.add_row("", Text(letter, style="bold"), Markdown(words))
            self.terminal.show(text)

    def _run(self, step: Step) -> None:
        self._markdown(step.markdown)
        count = sum(variation.takes == 0 for variation in self.lab.variations.values())
        self.terminal.show(f"Enter runs it here: {count} variations, side by side.")
        self.terminal.show("`recording` takes the recording that comes with the lab instead.")
        if self.progress.run:
            self.terminal.show("You have run it already: `next` goes on with that run.")
        while True:
            line = self.go_on("Enter: run")
            if line == "next" and self.progress.run:
                return
            if line == "recording":
                self.progress.run = str(self.lab.folder / "recording")
                self.terminal.show("The recording that comes with the lab it is.")
                return
            if line:
                self.terminal.show("Type Enter, `recording`, or `help`.")
                continue
            if self._ran():
                return

    def _ran(self) -> bool:
        from netlab.cli.lab import play
        from netlab.report.verdicts import totals

        try:
            settings = self._settings()
            done = play([self.lab], settings)
        except NetlabError as error:
            self.terminal.plain(f"It could not be run: {error}")
            return False
        if not done:
            self.terminal.show("The run was interrupted.")
            return False
        result = done[0]
        counts: dict[str, int] = {}
        for check in result.checks:
            counts[str(check.verdict.outcome)] = counts.get(str(check.verdict.outcome), 0) + 1
            if check.verdict.outcome == "fail":
                self.terminal.plain(f"fail  {check.sentence}: {check.verdict.observed}")
        if result.exit_code() == 130:
            self.terminal.show("The run was interrupted.")
            return False
        self.terminal.plain(totals(counts))
        if any(variation.fidelity != "ok" for variation in result.variations):
            self.terminal.show("This machine was busy: some figures may be less exact than usual.")
        if all(variation.status != "ran" for variation in result.variations):
            reasons = dict.fromkeys(v.reason for v in result.variations if v.reason)
            self.terminal.plain(f"Nothing could run here: {'; '.join(reasons)}")
            self.terminal.show("`recording` goes on with the recording that comes with the lab.")
            return False
        self.progress.run = str((settings.root / result.lab / result.run).resolve())
        return True

    def _compare(self, step: Step) -> None:
        figures, own = self._figures()
        first = self.guide.of("compare")[0]
        if step is first:
            if not own:
                self.terminal.show(
                    Text("(figures of the recording that comes with the lab)", style="dim")
                )
            self._predictions(figures)
        self._markdown(guide.fill(step.markdown, figures))
        self.pause()

    def _predictions(self, figures: dict[str, str]) -> None:
        """Hold each answer against what is right or was measured."""
        asked = [s.question for s in self.guide.of("predict") if s.question is not None]
        right = wrong = 0
        for number, question in enumerate(asked, 1):
            answer = self.progress.answers.get(question.text)
            told = answers.judge(question, answer, figures)
            mark = {True: "agrees", False: "differs", None: "-"}[told.right]
            right += told.right is True
            wrong += told.right is False
            style = {True: "green", False: "yellow", None: "dim"}[told.right]
            grid = Table.grid(padding=(0, 1))
            grid.add_column(width=8)
            grid.add_column(width=8, style="dim")
            grid.add_column()
            grid.add_row(Text(mark, style=style), f"{number}.", Text(_plain(question.text)))
            grid.add_row("", "you", Text(_answered(question, answer)))
            if told.expected:
                grid.add_row("", "right", Text(_plain(told.expected)))
            self.terminal.show(grid)
        self.terminal.show()
        if right + wrong:
            self.terminal.show(f"{right} of {right + wrong} predictions agree.")
        else:
            self.terminal.show("You made no predictions; `go 2` leads back to the questions.")
        self.terminal.show()

    def _look(self, step: Step) -> None:
        self._markdown(step.markdown)
        recordings = self._recordings()
        if not recordings:
            self.terminal.show("There is no recording to look at.")
            self.pause()
            return
        name, shown = next(iter(recordings.items()))
        self._ladder(name, shown, room=16)
        labels = self._states(name, shown)
        told = "Type the name of a variation for its whole ladder"
        told += ", or of a moment for what `ss` showed." if labels else "."
        self.terminal.show(f"{told}\nVariations: {', '.join(recordings)}")
        while True:
            line = self.go_on()
            if not line:
                return
            if line in recordings:
                name, shown = line, recordings[line]
                self._ladder(name, shown)
                labels = self._states(name, shown)
            elif line in labels:
                self._snapshot(shown, line, labels[line])
            else:
                known = ", ".join([*recordings, *labels])
                self.terminal.plain(f"There is no '{line}'; there are: {known}")

    def _ladder(self, name: str, recording: Recording, room: int = 100) -> None:
        from netlab.analysis.evidence import Evidence
        from netlab.report.ladder import ladder

        where = self.lab.ladder or next(
            (Path(file).stem.replace(".", ":", 1) for file in recording.files("captures/*.pcap")),
            "",
        )
        try:
            rows = Evidence(recording).capture(where).segments if where else ()
        except NetlabError:
            rows = ()
        if not rows:
            self.terminal.plain(f"{name} has no TCP segments to show.")
            return
        rows = [row for row in rows if row.stream == rows[0].stream]
        self.terminal.plain(f"The segments of {name} at {where}:\n")
        drawn = ladder(rows, width=self.terminal.width, unicode=self.terminal.unicode, room=room)
        self.terminal.plain(drawn)

    def _states(self, name: str, recording: Recording) -> dict[str, Sequence[str]]:
        """Show the states of the sockets at each snapshot; return the nodes by label."""
        from netlab.analysis.evidence import Evidence

        seen = Evidence(recording)
        events = seen.events("snapshot")
        labels: dict[str, list[str]] = {}
        if not events:
            return {}
        table = Table("time", "moment", "node", "sockets", box=None, padding=(0, 2, 0, 0))
        start = seen.timeline[0].at_ns
        for event in events:
            label, node = str(event.fields["label"]), str(event.fields["node"])
            try:
                sockets = seen.snapshot(label, node)
            except NetlabError:
                continue
            labels.setdefault(label, []).append(node)
            count: dict[str, int] = {}
            for socket in sockets:
                count[socket.state] = count.get(socket.state, 0) + 1
            told = ", ".join(f"{n} x {state}" if n > 1 else state for state, n in count.items())
            time = f"{(event.at_ns - start) / 1e9:.3f} s"
            table.add_row(time, label, node, told or "none")
        self.terminal.plain(f"What `ss` showed in {name}:\n")
        self.terminal.show(table)
        self.terminal.show()
        return {**labels}

    def _snapshot(self, recording: Recording, label: str, nodes: Sequence[str]) -> None:
        for node in nodes:
            text = recording.text(f"snapshots/{label}.{node}.ss.txt")
            self.terminal.plain(f"$ netlab exec {node} -- ss -tanimo\n{text.rstrip()}\n")

    def _explain(self, step: Step) -> None:
        question = step.question
        if question is None:
            self._read(step)
            return
        self._ask(question)
        self.terminal.show(Text("Write a sentence, or think about it and go on.", style="dim"))
        line = self.go_on("Your answer", question)
        if line:
            self.progress.answers[question.text] = line

    def _next(self, step: Step) -> None:
        from netlab.labs import discovery

        self._markdown(guide.fill(step.markdown, self._figures()[0]))
        text = guide.read(self.lab)
        known = [name for name in discovery.names() if name != self.lab.name]
        named = [name for name in known if f"`{name}`" in text]
        self.terminal.show(f"That was {self.lab.name}.")
        if named:
            self.terminal.show("The guide names other labs that go on from here:")
        for name in named:
            self.terminal.plain(f"  netlab lab learn {name}")
        if not named:
            self.terminal.show("`netlab lab list` shows the other labs.")

    # -- what is shown ----------------------------------------------------------------------------

    def _figures(self) -> tuple[dict[str, str], bool]:
        """Return the figures of the learner's run, True, or those of the committed recording."""
        for path, own in ((Path(self.progress.run), True), (self.lab.folder / "recording", False)):
            if path == Path() or (own and path == self.lab.folder / "recording"):
                continue
            try:
                _, recordings, _ = judge.open_run(path)
            except NetlabError:
                continue
            found = guide.measure(self.lab, recordings)
            if found:
                return found, own
        return {}, False

    def _recordings(self) -> dict[str, Recording]:
        for path in (Path(self.progress.run or "none"), self.lab.folder / "recording"):
            try:
                _, recordings, _ = judge.open_run(path)
            except NetlabError:
                continue
            order = list(self.lab.variations)
            known = sorted(recordings, key=lambda n: order.index(n) if n in order else len(order))
            return {name: recordings[name] for name in known}
        return {}

    def _markdown(self, text: str) -> None:
        for code, part in _parts(text):
            if code:
                self.terminal.plain(part)
            else:
                self.terminal.show(Markdown(part))
            self.terminal.show()


def _parts(markdown: str) -> Iterator[tuple[bool, str]]:
    """Yield code blocks (True), which are shown as they are so that they can be copied, and text.

    A block of code is what four blanks indent, or what stands between fences, as in the guides.
    """
    found: list[tuple[bool, list[str]]] = []
    fenced = False
    for line in markdown.split("\n"):
        if line.startswith("```"):
            fenced = not fenced
            continue
        last = found[-1][0] if found else False
        code = fenced or line.startswith("    ") or (last and not line.strip())
        if not found or found[-1][0] != code:
            found.append((code, []))
        found[-1][1].append(line)
    for code, lines in found:
        part = "\n".join(lines).strip("\n")
        if part.strip():
            yield code, part


def _prompt(question: Question) -> str:
    if question.form == "choice":
        return f"Your answer ({'/'.join(letter for letter, _ in question.choices)})"
    if question.form == "number":
        return f"Your answer ({question.unit})"
    return "Your answer"


def _answered(question: Question, answer: str | None) -> str:
    if answer is None:
        return "(no answer)"
    if question.form == "choice":
        letter = answer.strip().rstrip(".)").lower()
        return f"{letter}. {_plain(dict(question.choices)[letter])}"
    if question.form == "number" and not re.search(r"[A-Za-z%]", answer):
        return f"{answer} {question.unit}"
    return answer


def _plain(markdown: str) -> str:
    """Return Markdown of one paragraph without its marks."""
    text = re.sub(r"`([^`]*)`", r"\1", " ".join(markdown.split()))
    return re.sub(r"\*+([^*]+)\*+", r"\1", text)


def start(lab: Lab, settings: Callable[[], Settings], *, restart: bool, step: int | None) -> None:
    """Play the guide of a lab from where the learner left it, or from `step` (from 1).

    `settings` is asked when the lab is to be run.
    """
    if restart:
        learner.forget(lab.name, os.environ)
    progress = learner.load(lab.name, os.environ)
    session = Session(lab, settings, Terminal(), progress)
    if step is not None:
        if step > len(session.guide.steps):
            raise UsageError(f"the guide of {lab.name} has {len(session.guide.steps)} steps")
        progress.step = step - 1
    try:
        session.play()
    except Leave:
        session.save()
        click.echo(f"`netlab lab learn {lab.name}` goes on from here.", err=True)
    except KeyboardInterrupt:
        session.save()
        raise
