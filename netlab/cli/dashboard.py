"""The screen of `netlab top`: three tables of a lab, drawn line by line.

Textual's own table lays out every cell of every row at each change; a lab may have hundreds of
rows, of which a terminal shows twenty. `Grid` makes only the lines that are seen.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from rich.segment import Segment
from rich.style import Style
from textual import events, work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.geometry import Size
from textual.screen import ModalScreen
from textual.scroll_view import ScrollView
from textual.strip import Strip
from textual.widgets import Footer, Input, Static

from netlab.cli.panels import PANELS, Column, Panel, bits, chosen, in_order, states
from netlab.engine.channel import ChannelClosedError
from netlab.engine.overview import View
from netlab.errors import NetlabError

PERIODS = (0.5, 1.0, 2.0, 5.0, 10.0)
BLOCKS = " ▁▂▃▄▅▆▇"
LONGEST_HISTORY = 60
GAP = "  "


class Source(Protocol):
    """What is looked at: `netlab.engine.overview.Overview`."""

    def view(self) -> View:
        """Return what has happened since the view before."""
        ...


def spark(values: Sequence[float], width: int, most: float) -> str:
    """Draw the newest values as blocks, the largest of them `most` high; 0 is a blank."""
    newest = list(values)[-width:]
    return "".join(_block(value, most) for value in newest).rjust(width)


def _block(value: float, most: float) -> str:
    if value <= 0 or most <= 0:
        return BLOCKS[0]
    return BLOCKS[max(1, min(len(BLOCKS) - 1, round(value / most * (len(BLOCKS) - 1))))]


class Grid(ScrollView, can_focus=True):
    """A table with a heading that stays; sorted by the column that was asked for."""

    COMPONENT_CLASSES: ClassVar[set[str]] = {
        "grid--heading", "grid--sorted", "grid--plain", "grid--name", "grid--rate", "grid--dim",
        "grid--warn", "grid--bad", "grid--spark",
    }  # fmt: skip

    def __init__(self, panel: Panel, number: int) -> None:
        super().__init__(id=panel.title.lower())
        self.panel, self.number = panel, number
        self.rows: list[Any] = []
        self.column, self.reverse = panel.sort, False
        self._history: dict[str, deque[float]] = {}
        self._total = 0

    def show(self, view: View, pattern: str, *, remember: bool) -> None:
        """Take the rows of a view; `remember` their rates for the last column."""
        self.rows = chosen(self.panel, view, pattern)
        self._total = len(self.panel.rows(view))
        if remember:
            before = self._history
            self._history = {}
            for row in self.panel.rows(view):
                name = self.panel.name(row)
                values = before.get(name) or deque(maxlen=LONGEST_HISTORY)
                values.append(self.panel.rate(row))
                self._history[name] = values
        self._arrange()

    def sort_by(self, column: int) -> None:
        """Sort by a column; by the same one again, the other way round."""
        column %= len(self.panel.columns)
        self.reverse = not self.reverse if column == self.column else False
        self.column = column
        self._arrange()

    def turn(self) -> None:
        """Sort the other way round."""
        self.reverse = not self.reverse
        self._arrange()

    def _arrange(self) -> None:
        self.rows = in_order(self.panel, self.rows, self.column, reverse=self.reverse)
        self.border_title = f"{self.number} {self.panel.title}"
        shown = len(self.rows)
        self.border_subtitle = f"{shown} of {self._total}" if shown < self._total else f"{shown}"
        self.virtual_size = Size(self.scrollable_content_region.width, shown + 1)
        self.refresh()

    def _widths(self) -> tuple[list[int], int]:
        """Return the widths of the columns, and what is left for the last minute."""
        width = self.scrollable_content_region.width
        widths = [column.width for column in self.panel.columns]
        left = width - sum(widths) - len(GAP) * (len(widths) - 1)
        names = [len(self.panel.columns[0].text(row)) for row in self.rows]
        wanted = max([widths[0], *names], default=widths[0])
        grown = max(0, min(wanted - widths[0], left))
        widths[0] += grown
        left -= grown + len(GAP)
        return widths, min(left, LONGEST_HISTORY) if left >= 6 else 0

    def _style(self, name: str) -> Style:
        return self.get_component_rich_style(f"grid--{name}")

    def render_line(self, y: int) -> Strip:
        """Draw one line of what is seen."""
        widths, left = self._widths()
        width = self.scrollable_content_region.width
        if y == 0:
            segments = self._heading(widths, left)
        else:
            number = y - 1 + self.scroll_offset.y
            if number >= len(self.rows):
                return Strip.blank(width, self.rich_style)
            segments = self._row(self.rows[number], widths, left)
        return Strip(segments).adjust_cell_length(width, self.rich_style)

    def _heading(self, widths: list[int], left: int) -> list[Segment]:
        found: list[Segment] = []
        for number, (column, width) in enumerate(zip(self.panel.columns, widths, strict=True)):
            chosen = number == self.column
            arrow = "▲" if column.descending == self.reverse else "▼"
            mark = arrow if chosen and len(column.title) < width else ""
            text = column.title + mark if column.left else mark + column.title
            found.append(
                self._cell(text, column, width, self._style("sorted" if chosen else "heading"))
            )
            found.append(Segment(GAP, self._style("heading")))
        if left:
            found.append(Segment("history".rjust(left), self._style("heading")))
        return found

    def _row(self, row: Any, widths: list[int], left: int) -> list[Segment]:
        found: list[Segment] = []
        gap = Segment(GAP, self.rich_style)
        for column, width in zip(self.panel.columns, widths, strict=True):
            found += (
                self._cell(column.text(row), column, width, self._style(column.tone(row))),
                gap,
            )
        if left:
            values = self._history.get(self.panel.name(row), ())
            drawn = spark(list(values), left, max(values, default=0.0))
            found.append(Segment(drawn, self._style("spark")))
        return found

    def _cell(self, text: str, column: Column, width: int, style: Style) -> Segment:
        if len(text) > width:
            text = text[: width - 1] + "…"
        return Segment(text.ljust(width) if column.left else text.rjust(width), style)

    def on_click(self, event: events.Click) -> None:
        """Sort by the column whose heading was clicked."""
        place = event.get_content_offset(self)
        if place is None or place.y != 0:
            return
        start = 0
        for number, width in enumerate(self._widths()[0]):
            if start <= place.x < start + width + len(GAP):
                self.sort_by(number)
                return
            start += width + len(GAP)


HELP = """\
 [b]1 2 3[/]     one table alone, and back to all
 [b]Tab[/]       the next table; ↑ ↓ scroll it
 [b]s S[/]       sort by the next, the previous column; or click a heading
 [b]r[/]         sort the other way round
 [b]/[/]         only nodes with these letters, or like h*; Esc ends it
 [b]p Space[/]   stop, and go on
 [b]+ -[/]       look more often, less often
 [b]q[/]         quit

[b]Links[/]   → and ← are the two directions, in bits that arrive
 load      of the rate the link was given, in its fuller direction
 queue     packets that wait inside the link; drops: lost inside it
[b]Connections[/]   TCP, as told by the end that sends most
 bit/s     acknowledged; cwnd, ssthr: windows in segments
 rtt ms    smoothed round-trip time; resent: segments sent again
[b]Nodes[/]   drops at its interfaces; its TCP sockets by state
"""


class Help(ModalScreen[None]):
    """Keys and columns; any key closes it."""

    def compose(self) -> ComposeResult:
        """Show the text in a box."""
        with VerticalScroll(id="help"):
            yield Static(HELP)

    def on_mount(self) -> None:
        """Give the box a title."""
        box = self.query_one("#help")
        box.border_title, box.border_subtitle = "netlab top", "any key closes"

    def on_key(self, event: events.Key) -> None:
        """Close, unless it scrolls."""
        if event.key not in ("up", "down", "pageup", "pagedown"):
            event.stop()
            self.dismiss()


class Dashboard(App[str]):
    """`netlab top`."""

    CSS = """
    Screen { background: $background; }
    #summary { height: 2; padding: 0 1; background: $panel; }
    Grid { height: 1fr; border: round $primary-darken-2; border-title-color: $text-muted;
           border-subtitle-color: $text-muted; background: $background; scrollbar-size: 1 1;
           padding: 0 1; overflow-x: hidden; }
    Grid:focus { border: round $accent; border-title-color: $accent; border-title-style: bold; }
    Grid.away { display: none; }
    .grid--heading { color: $text-muted; text-style: bold; }
    .grid--sorted { color: $accent; text-style: bold; }
    .grid--plain { color: $text; }
    .grid--name { color: $text; text-style: bold; }
    .grid--rate { color: $success; }
    .grid--dim { color: $text-disabled; }
    .grid--warn { color: $warning; }
    .grid--bad { color: $error; text-style: bold; }
    .grid--spark { color: $primary; }
    #filter { height: 1; border: none; background: $panel; display: none; }
    #filter.open { display: block; }
    Help { align: center middle; }
    #help { width: 78; height: auto; max-height: 100%; border: round $accent; padding: 0 1;
            background: $surface; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("q", "quit", "Quit"),
        Binding("question_mark,f1", "help", "Help", key_display="?"),
        Binding("slash", "filter", "Filter", key_display="/"),
        Binding("s", "sort(1)", "Sort"),
        Binding("S", "sort(-1)", show=False),
        Binding("r", "turn", "Reverse"),
        Binding("p,space", "pause", "Pause"),
        Binding("1", "zoom(0)", "One table", key_display="1 2 3"),
        Binding("2", "zoom(1)", show=False),
        Binding("3", "zoom(2)", show=False),
        Binding("plus,equals_sign", "pace(-1)", show=False),
        Binding("minus", "pace(1)", show=False),
        Binding("escape", "clear", show=False, priority=True),
    ]

    def __init__(
        self, source: Source, *, period: float = 1.0, pattern: str = "", sort: str | None = None
    ) -> None:
        super().__init__()
        self.source = source
        self.period, self.pattern = period, pattern
        self.paused = False
        self.latest: View | None = None
        self.views = 0
        self._rates: deque[float] = deque(maxlen=LONGEST_HISTORY)
        self.grids = [Grid(panel, number + 1) for number, panel in enumerate(PANELS)]
        for grid in self.grids:
            titles = [column.title for column in grid.panel.columns]
            if sort in titles:
                grid.column = titles.index(sort)

    def compose(self) -> ComposeResult:
        """A summary, three tables, a line for the filter, the keys."""
        yield Static(id="summary")
        yield from self.grids
        yield Input(self.pattern, id="filter", placeholder="node name or pattern", compact=True)
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        """Begin to look."""
        self.title = "netlab top"
        self.grids[0].focus()
        self._look()

    # -- looking

    @work(thread=True, exclusive=True, group="look")
    def _look(self) -> None:
        """Look from a thread of its own: a slow lab does not make the keys slow."""
        try:
            view = self.source.view()
        except ChannelClosedError:
            name = self.latest.lab if self.latest is not None else ""
            self.call_from_thread(self.exit, f"the lab {name} has ended")
        except NetlabError as error:
            self.call_from_thread(self.exit, f"error: {error}", error.exit_code)
        else:
            self.call_from_thread(self._seen, view)

    def _seen(self, view: View) -> None:
        """Show a view and look again when it is time; the first has no rates."""
        if view.span and not self.paused:
            self.latest = view
            self.views += 1
            self._rates.append(view.rate)
            self._show(remember=True)
        self.set_timer(self.period if self.views else min(self.period, 0.3), self._look)

    def _show(self, *, remember: bool = False) -> None:
        if self.latest is None:
            return
        for grid in self.grids:
            grid.show(self.latest, self.pattern, remember=remember)
        self._summarize(self.latest)

    def _summarize(self, view: View) -> None:
        summary = self.query_one("#summary", Static)
        width = self.size.width - 2
        clock = time.strftime("%H:%M:%S", time.localtime(view.at_ns / 1e9))
        state = "[$warning b]paused[/]" if self.paused else f"every {self.period:g} s"
        only = f"   [$accent]only {self.pattern}[/]" if self.pattern else ""
        first = (
            f"[b $accent]{view.lab}[/]   {len(view.nodes)} nodes   {len(view.links)} links"
            f"   [$text-muted]{clock}   {state}[/]{only}"
        )
        drops = f"[$error b]{bits(view.drops)}[/]" if view.drops >= 0.5 else "0"
        total = f"[b $success]{bits(view.rate)}bit/s[/] over all links"
        second = f"{total}   drops/s {drops}   TCP: {states(view)}"
        drawn = spark(list(self._rates), 20, max(self._rates, default=0.0)) if width >= 100 else ""
        summary.update(f"{first}   [$primary]{drawn}[/]\n{second}")

    # -- keys

    @property
    def grid(self) -> Grid:
        """The table in which keys work."""
        return self.focused if isinstance(self.focused, Grid) else self.grids[0]

    def action_sort(self, step: int) -> None:
        """Sort by the next column."""
        count = len(self.grid.panel.columns)
        self.grid.sort_by((self.grid.column + step) % count)

    def action_turn(self) -> None:
        """Sort the other way round."""
        self.grid.turn()

    def action_zoom(self, number: int) -> None:
        """Show one table alone, or all again."""
        alone = [grid for grid in self.grids if not grid.has_class("away")] == [self.grids[number]]
        for place, grid in enumerate(self.grids):
            grid.set_class(not alone and place != number, "away")
        self.grids[number].focus()

    def action_pause(self) -> None:
        """Stop the picture, or go on."""
        self.paused = not self.paused
        self._show()

    def action_pace(self, step: int) -> None:
        """Look more or less often."""
        nearest = min(range(len(PERIODS)), key=lambda i: abs(PERIODS[i] - self.period))
        self.period = PERIODS[max(0, min(len(PERIODS) - 1, nearest + step))]
        self._show()

    def action_help(self) -> None:
        """Explain keys and columns."""
        self.push_screen(Help())

    def action_filter(self) -> None:
        """Ask for a node."""
        box = self.query_one("#filter", Input)
        box.add_class("open")
        box.focus()

    def action_clear(self) -> None:
        """End the filter, or what lies over the tables."""
        if isinstance(self.screen, Help):
            self.screen.dismiss()
            return
        self.query_one("#filter", Input).value = ""
        self._leave_filter()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while it is typed."""
        self.pattern = event.value.strip()
        self._show()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Keep the filter."""
        self._leave_filter()

    def _leave_filter(self) -> None:
        box = self.query_one("#filter", Input)
        box.remove_class("open")
        visible = [grid for grid in self.grids if not grid.has_class("away")]
        if not isinstance(self.focused, Grid):
            visible[0].focus()
