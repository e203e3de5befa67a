"""What people see of a live recognition: one block on a terminal, a line now and then elsewhere, all on stderr."""

from __future__ import annotations

import time
from datetime import timedelta
from types import TracebackType

from rich.console import Group
from rich.live import Live as Block
from rich.markup import escape
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from kinegru.console import SECONDS_BETWEEN_LINES, console, counted, say
from kinegru.recognition.live import Live, Seen
from kinegru.video.container import shown

SECONDS_BETWEEN_BLOCKS = 0.1
WIDTH = 80
CLASSES = 3


class Display:
    """Shows how a recognition is going whenever `update` is called, as a context manager."""

    def __init__(self, live: Live, record: str | None = None, block: bool = True) -> None:
        self.live, self.record = live, record
        self.began = time.monotonic()
        self._drawn, self._said = 0.0, self.began
        self._told: tuple[str | None, int] = (None, 0)  # the trouble and the reconnects that were told
        self._label: str | None = None
        self._block = Block(console=console, auto_refresh=False, transient=True) if block else None

    def __enter__(self) -> Display:
        if self._block is not None:
            self._block.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._block is not None:
            self._block.stop()

    def update(self) -> None:
        """Show the state of now, not more often than it can be read."""
        self._tell_troubles()
        now = time.monotonic()
        if self._block is not None:
            if now - self._drawn >= SECONDS_BETWEEN_BLOCKS:
                self._drawn = now
                self._block.update(self._panel(), refresh=True)
            return
        seen = self.live.latest
        label = seen.label if seen is not None else None
        wait = 1.0 if label != self._label else SECONDS_BETWEEN_LINES
        if seen is not None and now - self._said >= wait:
            self._said, self._label = now, label
            say(f"{shown(seen.label)} {seen.score:.0%}: {self._numbers(seen)}")

    def _tell_troubles(self) -> None:
        capture = self.live.capture
        told, reconnects = self._told
        if capture.trouble is not None and capture.trouble != told:
            say(f"{self.live.source.name}: {capture.trouble}")
        if capture.reconnects != reconnects:
            say(f"{self.live.source.name}: there again ({counted(capture.reconnects, 'reconnect')})")
        self._told = (capture.trouble, capture.reconnects)

    def _numbers(self, seen: Seen | None) -> str:
        live = self.live
        rate = live.rate if live.capture.trouble is None else None
        parts = [f"{seen.latency * 1000:.0f} ms late"] if seen is not None else []
        if rate is not None and live.capture.rate is not None:
            parts.append(f"{rate:.1f} of {live.capture.rate:.1f} frames/s")
        parts.append(f"{live.drops} dropped")
        if live.source.comes_back:
            parts.append(counted(live.reconnects, "reconnect"))
        return " · ".join([*parts, str(timedelta(seconds=int(time.monotonic() - self.began)))])

    def _panel(self) -> Panel:
        live = self.live
        seen = live.latest if live.capture.trouble is None else None
        rows: list[Text | Table] = [self._headline(seen)]
        rows.append(_bars(seen.top(CLASSES) if seen is not None else [], min(CLASSES, len(live.stream.labels))))
        rows.append(Text(self._numbers(seen), style="dim"))
        title = escape(live.source.name)
        below = "Ctrl-C stops"
        if self.record is not None:
            below = f"[red]●[/] records {escape(shown(self.record))} · {below}"
        width = max(1, min(WIDTH, console.width - len("^C")))  # what a terminal shows for Ctrl-C stays on the line
        return Panel(Group(*rows), title=title, title_align="left", subtitle=below, subtitle_align="right", width=width)

    def _headline(self, seen: Seen | None) -> Text:
        live = self.live
        if live.capture.trouble is not None:
            return Text(live.capture.trouble, style="bold yellow", no_wrap=True, overflow="ellipsis")
        if seen is not None:
            unknown = not seen.known
            headline = Text(shown(seen.label), style="bold yellow" if unknown else "bold green")
            return headline if unknown else headline.append(f"  {seen.score:.0%}", style="not bold")
        if live.capture.source_rate is None:
            return Text("connecting ...", style="bold")
        window = live.stream.window or 1
        return Text(f"the window fills: {min(live.stream.count, window)} of {window} frames", style="bold")


def _bars(classes: list[tuple[str, float]], rows: int) -> Table:
    """Always as many rows, so that nothing jumps."""
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(no_wrap=True, overflow="ellipsis", max_width=24)
    table.add_column(justify="right", width=5)
    table.add_column(ratio=1)
    for label, score in [*classes, *[("", 0.0)] * rows][:rows]:
        bar = ProgressBar(total=1.0, completed=score, complete_style="cyan", finished_style="cyan") if label else ""
        table.add_row(Text(shown(label)), f"{score:.0%}" if label else "", bar)
    return table
