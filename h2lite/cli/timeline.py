"""The demo in a terminal: what happens as it happens, and the table at the end.

Where there is a terminal, each lane is one line that is drawn again and again; elsewhere, and
above those lines, each happening is a line of its own.
"""

from __future__ import annotations

import os
import shutil
import sys

from ..value import Value
from .lanes import BEAT_S, measure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import TextIO

    from .lanes import Change, Record

COLUMNS_MAX = 4  # a second, however wide the terminal is
COLUMNS_MIN = 2  # so that something has room between two beats
LABEL_COLUMNS = 20
STATE_COLUMNS = 9
LEGEND_COLUMNS = 74


class Marks(Value):
    """A character for each thing to be seen."""

    __slots__ = ("answered", "lost", "waiting", "freeze", "dead", "live", "probing", "suspect")

    def __init__(self, characters: str) -> None:
        (
            self.answered,
            self.lost,
            self.waiting,
            self.freeze,
            self.dead,
            self.live,
            self.probing,
            self.suspect,
        ) = list(characters)


UNICODE_MARKS = Marks("●✗◌┃†─╌┈")
ASCII_MARKS = Marks("ox.|X-~:")
PING, DOUBT, DIALLED = "?", "!", "+"

RED, GREEN, YELLOW, CYAN, DIM, BOLD = "31", "32", "33", "36", "2", "1"

TOLD = {
    ("CONNECTING", "LIVE"): "connection {number} is there",
    ("CONNECTING", "DEAD"): "connection {number} could not be made ({cause})",
    ("LIVE", "PROBING"): "a PING asks connection {number}: PROBING",
    ("PROBING", "LIVE"): "it answers: LIVE",
    ("PROBING", "SUSPECT"): "no answer yet: SUSPECT, requests go elsewhere",
    ("SUSPECT", "LIVE"): "it answers after all: LIVE",
    ("PROBING", "DEAD"): "no answer, connection {number} is DEAD: {cause}",
    ("SUSPECT", "DEAD"): "no answer, connection {number} is DEAD: {cause}",
    ("LIVE", "DEAD"): "connection {number} is closed: {cause}",
}


# -- what happens, in words --------------------------------------------------------------------


class Telling:
    """Gives each happening once, as (instant, whose, what), those that came together in order.

    with_beats   lost beats too, and the first answer after one
    """

    def __init__(self, records: Sequence[Record], with_beats: bool) -> None:
        self._records = records
        self._with_beats = with_beats
        self._changes = [0] * len(records)
        self._beats = [0] * len(records)
        self._frozen = False

    def news(self) -> list[tuple[float, str, str]]:
        """What has happened since it was asked last."""
        found: list[tuple[float, str, str]] = []
        for index, record in enumerate(self._records):
            changes = record.changes[self._changes[index] :]
            self._changes[index] += len(changes)
            found += [(change.at, record.name, told(change)) for change in changes]
            if self._with_beats:
                found += self._news_of_beats(index, record)
            if record.frozen_at is not None and not self._frozen:
                self._frozen = True
                found.append((record.frozen_at, "", "every live connection falls silent"))
        return sorted(found, key=lambda happening: happening[0])

    def _news_of_beats(self, index: int, record: Record) -> Iterator[tuple[float, str, str]]:
        while self._beats[index] < len(record.beats):
            number = self._beats[index]
            beat = record.beats[number]
            if beat.ended is None:
                return
            self._beats[index] += 1
            if beat.fault:
                yield beat.ended, record.name, f"beat {number} is lost: {beat.fault}"
            elif number and record.beats[number - 1].fault:
                yield beat.ended, record.name, f"beat {number} is answered"


def told(change: Change) -> str:
    """A change in words."""
    words = TOLD[change.before, change.after]
    return words.format(number=change.connection, cause=change.cause)


# -- lines -------------------------------------------------------------------------------------


class PlainTimeline:
    """A line a happening, with its instant."""

    def __init__(self, records: Sequence[Record], out: TextIO) -> None:
        self._telling = Telling(records, with_beats=True)
        self._out = out

    def show(self, now: float) -> None:
        """Print what has happened until now."""
        for line in happening_lines(self._telling.news()):
            print(line, file=self._out, flush=True)

    def close(self, now: float) -> None:
        self.show(now)


def happening_lines(happenings: list[tuple[float, str, str]]) -> list[str]:
    return [f"{at:7.2f} s  {name:<{LABEL_COLUMNS}}{what}" for at, name, what in happenings]


class LiveTimeline:
    """Lanes that are drawn anew at each `show`, under what has happened.

    columns   of the terminal, which has room for `seconds`: see `columns_per_second`
    colours   False: none
    """

    def __init__(
        self,
        records: Sequence[Record],
        seconds: int,
        out: TextIO,
        columns: int,
        marks: Marks,
        colours: bool,
    ) -> None:
        self._records = records
        self._seconds = seconds
        self._out = out
        self._marks = marks
        self._colours = colours
        self._scale = columns_per_second(seconds, columns)
        self._telling = Telling(records, with_beats=False)
        self._drawn = 0  # lines below which the cursor stands

    def show(self, now: float) -> None:
        """Print what has happened until now, and draw the lanes as they are."""
        lines = happening_lines(self._telling.news())
        if not self._drawn:
            self._write("\x1b[?25l")  # no cursor, it would only flicker
        above = [self._styled(line, DIM) for line in lines]
        block = self._block(now)
        up = f"\x1b[{self._drawn}F" if self._drawn else ""
        self._write(f"{up}\x1b[J" + "".join(f"{line}\n" for line in above + block))
        self._drawn = len(block)

    def close(self, now: float) -> None:
        """Leave the last picture there."""
        try:
            self.show(now)
        finally:
            self._write("\x1b[?25h")

    def _block(self, now: float) -> list[str]:
        lines = ["", " " * LABEL_COLUMNS + axis(self._seconds, self._scale)]
        for record in self._records:
            label = f"{record.name:<{LABEL_COLUMNS}}"
            if record.missing:
                lines.append(label + self._styled("did not start, see below", DIM))
                continue
            cells = lane_cells(record, now, self._seconds, self._scale, self._marks)
            drawn = "".join(self._styled(character, style) for character, style in cells)
            lines.append(f"{label}{drawn} {self._styled(record.state, STYLES[record.state])}")
        marks = self._marks
        legend = (
            f"{marks.answered} answered  {marks.lost} lost  {marks.waiting} waits  "
            f"{marks.freeze} silence  {PING} PING  {DOUBT} SUSPECT  {marks.dead} DEAD  "
            f"{DIALLED} new"
        )
        return [*lines, "", self._styled(legend, DIM)]

    def _styled(self, text: str, style: str) -> str:
        if not self._colours or not style or text == " ":
            return text
        return f"\x1b[{style}m{text}\x1b[0m"

    def _write(self, text: str) -> None:
        self._out.write(text)
        self._out.flush()


STYLES = {"": "", "CONNECTING": DIM, "LIVE": GREEN, "PROBING": YELLOW, "SUSPECT": YELLOW,
          "DEAD": RED}  # fmt: skip


def columns_per_second(seconds: int, columns: int) -> int:
    """How many columns of a terminal a second has; less than COLUMNS_MIN: it is too narrow."""
    if columns <= LEGEND_COLUMNS:
        return 0
    return min(COLUMNS_MAX, (columns - LABEL_COLUMNS - STATE_COLUMNS - 1) // seconds)


def axis(seconds: int, scale: int) -> str:
    """The seconds, each or each fifth, above their columns."""
    step = 1 if len(str(seconds)) < scale else 5
    return "".join(f"{second:<{step * scale}}" for second in range(0, seconds + 1, step)).rstrip()


def lane_cells(
    record: Record, now: float, seconds: int, scale: int, marks: Marks
) -> list[tuple[str, str]]:
    """A lane's characters with their styles, up to now and blank from there on."""
    width = seconds * scale + 1
    until = min(width - 1, int(now * scale))
    cells = [(" ", "")] * width
    strokes = {"LIVE": marks.live, "PROBING": marks.probing, "SUSPECT": marks.suspect}
    changes = list(record.changes)
    newest, state = 0, ""
    for column in range(until + 1):
        while changes and int(changes[0].at * scale) <= column:
            change = changes.pop(0)
            if change.connection >= newest:
                newest, state = change.connection, change.after
        if state in strokes:
            cells[column] = (strokes[state], STYLES[state])
    kept = {int(second * BEAT_S * scale) for second in range(seconds)}  # where beats begin
    for beat in record.beats:
        mark = (marks.waiting, YELLOW)
        if beat.ended is not None:
            mark = (marks.lost, f"{BOLD};{RED}") if beat.fault else (marks.answered, GREEN)
        cells[min(width - 1, round(beat.began * scale))] = mark
    for at, mark in sorted(_happenings(record, marks)):
        first = int(at * scale)
        for column in range(first, min(width, first + scale + 1)):  # or it would be misplaced
            if column not in kept:
                kept.add(column)
                cells[column] = mark
                break
    return cells


def _happenings(record: Record, marks: Marks) -> Iterator[tuple[float, tuple[str, str]]]:
    if record.frozen_at is not None:
        yield record.frozen_at, (marks.freeze, CYAN)
    shown = {
        "PROBING": (PING, YELLOW),
        "SUSPECT": (DOUBT, YELLOW),
        "DEAD": (marks.dead, RED),
        "LIVE": (DIALLED, GREEN),
    }
    for change in record.changes:
        is_first = change.connection == 1 and change.before == "CONNECTING"
        if not is_first and (change.before, change.after) != ("PROBING", "LIVE"):
            yield change.at, shown[change.after]


# -- which of them -----------------------------------------------------------------------------


def make_timeline(
    records: Sequence[Record], seconds: int, out: TextIO
) -> PlainTimeline | LiveTimeline:
    """The one for a stream: lanes for a terminal that can show them, else lines."""
    columns = shutil.get_terminal_size().columns
    capable = sys.platform != "win32" and os.environ.get("TERM", "dumb") != "dumb"
    if not (capable and out.isatty() and columns_per_second(seconds, columns) >= COLUMNS_MIN):
        return PlainTimeline(records, out)
    colours = not os.environ.get("NO_COLOR")
    return LiveTimeline(records, seconds, out, columns, marks_for(out.encoding), colours)


def marks_for(encoding: str) -> Marks:
    """The marks that an encoding has."""
    try:
        "".join(getattr(UNICODE_MARKS, name) for name in UNICODE_MARKS.slots()).encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return ASCII_MARKS
    return UNICODE_MARKS


# -- the end -----------------------------------------------------------------------------------


def table(records: Sequence[Record], end: float, causes: Mapping[str, str]) -> list[str]:
    """What was measured: a column for each lane that ran.

    causes   words for causes of death; those that occur are explained below
    """
    columns = [
        ["", "beats lost", "longest gap", "time to detect", "time to recover",
         "connections dialled", "cause of death"]
    ]  # fmt: skip
    notes: dict[str, None] = {}
    for record in records:
        if record.missing:
            continue
        measures = measure(record, end)
        detected, recovered = measures.detected, measures.recovered
        columns.append(
            [
                record.name,
                f"{measures.lost} of {measures.beats}",
                f"{measures.gap_s:.2f} s",
                "never" if detected is None else f"{detected[0]:.2f} s ({detected[1]})",
                "never" if recovered is None else f"{recovered:.2f} s",
                str(record.dials),
                measures.cause or "none",
            ]
        )
        if measures.cause in causes:
            notes[f"{measures.cause}: {causes[measures.cause]}"] = None
    widths = [max(map(len, column)) for column in columns]
    lines = []
    for cells in zip(*columns, strict=True):
        padded = (f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
        lines.append("   ".join(padded).rstrip())
    lines.insert(1, "   ".join("-" * width for width in widths))
    return [*lines, *notes]
