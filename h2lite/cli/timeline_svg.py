"""The demo's run as a drawing: SVG that stands alone, on a light page and on a dark one."""

from __future__ import annotations

from html import escape

from .lanes import measure

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .lanes import Measures, Record

WIDTH = 960
PLOT_LEFT, PLOT_RIGHT = 210, 930  # of the time axis
TOP, LANE_HEIGHT, BOTTOM = 96, 104, 84
# In a lane, from its top
GAP_TEXT_Y, BEAT_Y, BAR_Y, BAR_STEP, BAR_HEIGHT = 22, 40, 58, 14, 8
BARS_MAX = 2  # rows of connections; a third one is drawn in the first one's row
BEAT_RADIUS = 5
TICKS_MAX = 30  # labels on the axis

STYLE = """
    .page { fill: #ffffff; }
    text { fill: #1b1f24; font: 13px system-ui, sans-serif; }
    .title { font-size: 19px; font-weight: 600; }
    .name { font-size: 14px; font-weight: 600; }
    .quiet { fill: #59636e; }
    .small { font-size: 12px; }
    .rule { stroke: #d1d9e0; }
    .freeze { stroke: #0969da; stroke-width: 1.5; stroke-dasharray: 5 4; }
    .freeze-text { fill: #0969da; }
    .gap { fill: #cf222e; fill-opacity: 0.09; }
    .gap-text { fill: #b01824; }
    .answered { fill: #1a7f37; }
    .lost { stroke: #cf222e; stroke-width: 2.5; fill: none; }
    .waited { stroke: #cf222e; stroke-width: 1.5; stroke-opacity: 0.55; }
    .late { stroke: #1a7f37; stroke-width: 1.5; stroke-opacity: 0.7; }
    .waiting { stroke: #9a6700; stroke-width: 1.5; fill: none; }
    .LIVE { fill: #4ac26b; }
    .PROBING { fill: #d4a72c; }
    .SUSPECT { fill: #e16f24; }
    .dead { stroke: #cf222e; stroke-width: 2.5; }
    @media (prefers-color-scheme: dark) {
      .page { fill: #0d1117; }
      text { fill: #e6edf3; }
      .quiet { fill: #9198a1; }
      .rule { stroke: #3d444d; }
      .freeze { stroke: #58a6ff; }
      .freeze-text { fill: #58a6ff; }
      .gap { fill: #f85149; fill-opacity: 0.16; }
      .gap-text { fill: #ff8f88; }
      .answered { fill: #3fb950; }
      .lost, .waited, .dead { stroke: #f85149; }
      .late { stroke: #3fb950; }
      .waiting { stroke: #d29922; }
      .LIVE { fill: #238636; }
      .PROBING { fill: #d29922; }
      .SUSPECT { fill: #db6d28; }
    }
"""


def draw(records: Sequence[Record], end: float, subtitle: str) -> str:
    """The run until `end`, as an SVG document."""
    height = TOP + LANE_HEIGHT * len(records) + BOTTOM
    drawing = _Drawing(records, end)
    box = f'viewBox="0 0 {WIDTH} {height}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" {box} role="img" aria-labelledby="title desc">',
        '  <title id="title">A connection dies without a word</title>',
        f'  <desc id="desc">{escape(" ".join(_description(records, end)))}</desc>',
        f"  <style>{STYLE}  </style>",
        _rectangle("page", 0, 0, WIDTH, height),
        _text(24, 36, "A connection dies without a word", "title"),
        _text(24, 58, subtitle, "quiet"),
        *drawing.axis(TOP + LANE_HEIGHT * len(records)),
    ]
    for index, record in enumerate(records):
        lines += drawing.lane(record, TOP + index * LANE_HEIGHT)
    lines += [*drawing.freeze(len(records)), *_legend(height - 22), "</svg>", ""]
    return "\n".join(lines)


def _description(records: Sequence[Record], end: float) -> Iterator[str]:
    """The picture in words, for who cannot see it."""
    for record in records:
        if record.missing:
            yield f"{record.name} did not run: {record.missing}."
        else:
            yield f"{record.name}: {', '.join(_figures(measure(record, end)))}."


def _figures(measures: Measures) -> Iterator[str]:
    yield f"{measures.lost} of {measures.beats} beats lost"
    if measures.detected is not None:
        yield f"{measures.detected[1]} after {measures.detected[0]:.2f} s"
    else:
        yield "death not detected"
    if measures.recovered is not None:
        yield f"recovered after {measures.recovered:.2f} s"
    else:
        yield "not recovered"


class _Drawing:
    def __init__(self, records: Sequence[Record], end: float) -> None:
        self._end = end
        self._scale = (PLOT_RIGHT - PLOT_LEFT) / max(end, 1.0)
        frozen = [record.frozen_at for record in records if record.frozen_at is not None]
        self._frozen_at = frozen[0] if frozen else None

    def _x(self, at: float) -> float:
        return PLOT_LEFT + min(max(at, 0.0), self._end) * self._scale

    def axis(self, y: float) -> Iterator[str]:
        yield _line("rule", PLOT_LEFT, y, PLOT_RIGHT, y)
        step = 1
        while self._end / step > TICKS_MAX:
            step *= 5
        for second in range(0, int(self._end) + 1, step):
            x = self._x(second)
            yield _line("rule", x, y, x, y + 5)
            yield _text(x, y + 20, f"{second} s", "quiet small", "middle")

    def freeze(self, lanes: int) -> Iterator[str]:
        if self._frozen_at is None:
            return
        x = self._x(self._frozen_at)
        yield _line("freeze", x, TOP - 10, x, TOP + LANE_HEIGHT * lanes)
        words = f"{self._frozen_at:.1f} s: every live connection falls silent"
        yield _text(x + 6, TOP - 4, words, "freeze-text small")

    def lane(self, record: Record, y: float) -> Iterator[str]:
        """A record, in a lane whose top is at y."""
        yield _line("rule", 24, y, PLOT_RIGHT, y)
        yield _text(24, y + BEAT_Y + 5, record.name, "name")
        if record.missing:
            yield _text(PLOT_LEFT, y + BEAT_Y + 5, record.missing, "quiet")
            return
        measures = measure(record, self._end)
        for row, words in enumerate(_figures(measures)):
            yield _text(24, y + BEAT_Y + 23 + 16 * row, words, "quiet small")
        if measures.lost:
            yield from self._gap(*measures.gap, y)
        yield from self._connections(record, y)
        for beat in record.beats:
            yield from self._beat(beat.began, beat.ended, beat.fault, y + BEAT_Y)

    def _gap(self, begins: float, ends: float, y: float) -> Iterator[str]:
        left, right = self._x(begins), self._x(ends)
        yield _rectangle("gap", left, y + 1, right - left, LANE_HEIGHT - 2)
        words = f"{ends - begins:.2f} s without an answer"
        anchor, x = ("start", max(left, PLOT_LEFT)) if left < WIDTH / 2 else ("end", right)
        if self._frozen_at is not None and left <= self._x(self._frozen_at) < right:
            anchor, x = "start", self._x(self._frozen_at)
        yield _text(x + 6, y + GAP_TEXT_Y, words, "gap-text small", anchor)

    def _beat(self, began: float, ended: float | None, fault: str, y: float) -> Iterator[str]:
        x = self._x(began)
        if ended is None:
            yield _circle("waiting", x, y, BEAT_RADIUS)
            return
        if ended - began > 0.05:
            yield _line("waited" if fault else "late", x, y, self._x(ended), y)
        if not fault:
            yield _circle("answered", self._x(ended), y, BEAT_RADIUS)
            return
        r = BEAT_RADIUS
        path = f"M{x - r:.1f} {y - r:.1f}l{2 * r} {2 * r}m0 {-2 * r}l{-2 * r} {2 * r}"
        yield f'  <path class="lost" d="{path}"><title>{escape(fault)}</title></path>'

    def _connections(self, record: Record, y: float) -> Iterator[str]:
        """A bar for each connection, in the colours of its states."""
        by_number: dict[int, list[tuple[float, str, str]]] = {}
        for change in record.changes:
            states = by_number.setdefault(change.connection, [])
            states.append((change.at, change.after, change.cause))
        for number, states in by_number.items():
            top = y + BAR_Y + (number - 1) % BARS_MAX * BAR_STEP
            ends = [at for at, _, _ in states[1:]] + [self._end]
            for (at, state, cause), until in zip(states, ends, strict=True):
                left = self._x(at)
                if state != "DEAD":
                    yield _rectangle(
                        state, left, top, self._x(until) - left, BAR_HEIGHT,
                        f"connection {number}: {state}",
                    )  # fmt: skip
                    continue
                yield _line("dead", left, top - 3, left, top + BAR_HEIGHT + 3)
                yield _text(left + 7, top + BAR_HEIGHT, f"DEAD: {cause}", "gap-text small")


def _legend(y: float) -> Iterator[str]:
    x = 24.0
    for kind, words in (
        ("answered", "beat answered"),
        ("lost", "beat lost"),
        ("LIVE", "connection LIVE"),
        ("PROBING", "PROBING: a PING is out"),
        ("SUSPECT", "SUSPECT"),
        ("gap", "longest time without an answer"),
    ):
        if kind == "answered":
            yield _circle(kind, x + 8, y - 4, BEAT_RADIUS)
        elif kind == "lost":
            yield f'  <path class="lost" d="M{x + 3:.1f} {y - 9:.1f}l10 10m0 -10l-10 10"/>'
        else:
            yield _rectangle(kind, x, y - 9, 16, 10)
        yield _text(x + 22, y, words, "quiet small")
        x += 42 + 6.4 * len(words)  # as wide as such letters are at most, on the average


def _text(x: float, y: float, words: str, kind: str, anchor: str = "start") -> str:
    return (
        f'  <text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">'
        f"{escape(words)}</text>"
    )


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'  <line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _circle(kind: str, x: float, y: float, radius: float) -> str:
    return f'  <circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>'


def _rectangle(
    kind: str, x: float, y: float, width: float, height: float, words: str = ""
) -> str:
    shape = (
        f'  <rect class="{kind}" x="{x:.1f}" y="{y:.1f}" width="{max(0.0, width):.1f}"'
        f' height="{height:.1f}" rx="2"'
    )
    return f"{shape}><title>{escape(words)}</title></rect>" if words else f"{shape}/>"
