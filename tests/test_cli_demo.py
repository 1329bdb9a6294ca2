"""The demo: what it makes of a run that is written down here, and the run itself as a process."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import threading
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path

import pytest

from h2lite import health
from h2lite.cli import blackhole, demo, main, timeline
from h2lite.cli.lanes import Beat, Change, Lane, Measures, Record, measure
from h2lite.cli.timeline import (
    ASCII_MARKS,
    UNICODE_MARKS,
    LiveTimeline,
    PlainTimeline,
    Telling,
    axis,
    columns_per_second,
    lane_cells,
    make_timeline,
    marks_for,
    table,
    told,
)
from h2lite.cli.timeline_svg import WIDTH, draw
from h2lite.errors import UsageError
from h2lite.exchange import Reply
from h2lite.loop import monotonic

from .running import PATIENCE_S, serving
from .test_cli import run
from .test_cli_wrong_input import COMMAND

SECONDS = 12
END = 12.0

needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's")


def unchecked() -> Record:
    """Beats to the end, no answer after the silence."""
    record = Record("HTTP/2, no checks")
    record.frozen_at = 3.5
    record.beats = [Beat(float(n), n + 0.01) for n in range(4)]
    record.beats += [Beat(float(n), n + 0.8, "ReadTimeout") for n in range(4, SECONDS)]
    record.changes = [Change(0.005, 1, "CONNECTING", "LIVE", "")]
    record.dials = 1
    return record


def checked() -> Record:
    """Two beats lost, a third that is answered late, on another connection."""
    record = Record("HTTP/2, checked")
    record.frozen_at = 3.5
    record.beats = [Beat(float(n), n + 0.01) for n in range(4)]
    record.beats += [
        Beat(4.0, 4.8, "ReadTimeout"),
        Beat(5.0, 5.8, "PoolTimeout"),
        Beat(6.0, 6.36),
    ]
    record.beats += [Beat(float(n), n + 0.01) for n in range(7, SECONDS)]
    record.changes = [
        Change(0.005, 1, "CONNECTING", "LIVE", ""),
        Change(4.8, 1, "LIVE", "PROBING", ""),
        Change(5.5, 1, "PROBING", "SUSPECT", ""),
        Change(6.3, 1, "SUSPECT", "DEAD", "path_dead"),
        Change(6.35, 2, "CONNECTING", "LIVE", ""),
    ]
    record.dials = 2
    return record


def missing() -> Record:
    return Record("HTTP/1.1", "HTTP/1.1 needs <h11>")


# -- what a run comes to -----------------------------------------------------------------------


def test_a_lane_that_never_recovers_is_measured():
    assert measure(unchecked(), END) == Measures(
        beats=12, lost=8, gap=(3.01, 12.0), detected=None, recovered=None, cause=""
    )


def test_a_lane_that_recovers_is_measured_by_its_first_doubt_and_its_first_answer():
    measures = measure(checked(), END)

    assert measures == Measures(
        beats=12,
        lost=2,
        gap=(3.01, 6.36),
        detected=(2.0, "SUSPECT"),
        recovered=6.36 - 3.5,
        cause="path_dead",
    )
    assert measures.gap_s == 6.36 - 3.01


def test_without_doubt_it_is_the_death_that_tells():
    record = checked()
    del record.changes[2]

    assert measure(record, END).detected == (6.3 - 3.5, "DEAD")


def test_what_was_before_the_silence_is_not_counted_for_it():
    record = checked()
    record.frozen_at = 6.355

    measures = measure(record, END)

    assert (measures.detected, measures.cause) == (None, "")
    # The beat of 6.0 was on its way already.
    assert measures.recovered == 7.01 - 6.355


def test_a_beat_that_waits_is_neither_lost_nor_answered():
    record = unchecked()
    record.beats = [Beat(0.0, 0.01), Beat(1.0)]

    measures = measure(record, 1.5)

    assert (measures.beats, measures.lost, measures.gap) == (1, 0, (0.01, 1.5))


def test_the_longest_gap_may_be_the_first_one():
    record = Record("late")
    record.beats = [Beat(0.0, 0.8, "ReadTimeout"), Beat(1.0, 1.7), Beat(2.0, 2.1)]

    assert measure(record, 2.2).gap == (0.0, 1.7)


def test_a_lane_tells_the_state_of_its_newest_connection():
    assert Record("new").state == ""
    assert checked().state == "LIVE"
    record = checked()
    record.changes.append(Change(11.0, 2, "LIVE", "DEAD", "eof"))
    assert record.state == "DEAD"


# -- a lane ------------------------------------------------------------------------------------


def test_a_lane_beats_and_records_its_connection():
    with serving(lambda request: Reply(204)) as server:
        record = Record("lane")
        lane = Lane(record, server.url, demo.CHECKED, True, beats=1)
        lane.start(monotonic())
        lane._thread.join(PATIENCE_S)
        assert not lane.is_beating
        lane.close()

    [beat] = record.beats
    [change] = record.changes
    assert beat.ended is not None
    assert (beat.fault, 0 <= beat.began <= beat.ended) == ("", True)
    assert (change.connection, change.before, change.after) == (1, "CONNECTING", "LIVE")
    assert record.dials == 1


def test_an_answer_of_another_status_is_a_lost_beat():
    with serving() as server:
        record = Record("lane")
        lane = Lane(record, server.url, demo.CHECKED, True, beats=1)
        lane.start(monotonic())
        lane._thread.join(PATIENCE_S)
        lane.close()

    assert [beat.fault for beat in record.beats] == ["status 200"]


def test_a_lane_is_ended_in_the_middle_of_a_beat():
    asked = threading.Event()

    def slow(request) -> Reply:
        asked.set()
        return Reply(204, delay=60.0)

    with serving(slow) as server:
        record = Record("lane")
        lane = Lane(record, server.url, demo.CHECKED, True, beats=9)
        lane.start(monotonic())
        assert asked.wait(PATIENCE_S)
        lane.close()

        assert not lane.is_beating
    assert [beat.ended for beat in record.beats] == [None]
    assert "DEAD" not in [change.after for change in record.changes]


# -- in words ----------------------------------------------------------------------------------


def test_each_happening_is_told_once_in_its_order():
    record, other = checked(), unchecked()
    telling = Telling([other, record], with_beats=False)

    assert telling.news() == [
        (0.005, "HTTP/2, no checks", "connection 1 is there"),
        (0.005, "HTTP/2, checked", "connection 1 is there"),
        (3.5, "", "every live connection falls silent"),
        (4.8, "HTTP/2, checked", "a PING asks connection 1: PROBING"),
        (5.5, "HTTP/2, checked", "no answer yet: SUSPECT, requests go elsewhere"),
        (6.3, "HTTP/2, checked", "no answer, connection 1 is DEAD: path_dead"),
        (6.35, "HTTP/2, checked", "connection 2 is there"),
    ]
    assert telling.news() == []
    record.changes.append(Change(11.0, 2, "LIVE", "DEAD", "local"))
    assert telling.news() == [
        (11.0, "HTTP/2, checked", "connection 2 is closed: local")
    ]


def test_lost_beats_are_told_and_the_first_that_is_answered_again():
    record = checked()
    record.changes, record.frozen_at = [], None
    record.beats.append(Beat(12.0))
    telling = Telling([record], with_beats=True)

    assert telling.news() == [
        (4.8, "HTTP/2, checked", "beat 4 is lost: ReadTimeout"),
        (5.8, "HTTP/2, checked", "beat 5 is lost: PoolTimeout"),
        (6.36, "HTTP/2, checked", "beat 6 is answered"),
    ]
    record.beats[-1] = Beat(12.0, 12.8, "ReadTimeout")
    assert telling.news() == [
        (12.8, "HTTP/2, checked", "beat 12 is lost: ReadTimeout")
    ]


def test_every_change_that_health_knows_has_its_words():
    changes = {
        (before, after)
        for (before, _), (after, _) in health.TRANSITIONS.items()
        if before != after
    }

    for before, after in changes:
        names = health.STATE_NAMES[before], health.STATE_NAMES[after]
        assert told(Change(1.0, 7, *names, "eof"))
    assert len(timeline.TOLD) == len(changes)


# -- lines -------------------------------------------------------------------------------------


def drawn(record: Record, now: float, scale: int = 3, marks: timeline.Marks = UNICODE_MARKS) -> str:
    """A lane at the instant `now`, when nothing of what comes later is known."""
    known = Record(record.name)
    known.beats = [beat for beat in record.beats if beat.began <= now]
    known.changes = [change for change in record.changes if change.at <= now]
    if record.frozen_at is not None and record.frozen_at <= now:
        known.frozen_at = record.frozen_at
    cells = lane_cells(known, now, SECONDS, scale, marks)
    return "".join(character for character, _ in cells).rstrip()


def test_a_lane_shows_beats_states_and_what_happens():
    assert axis(SECONDS, 3) == "0  1  2  3  4  5  6  7  8  9  10 11 12"
    assert drawn(unchecked(), END) == "●──●──●──●┃─✗──✗──✗──✗──✗──✗──✗──✗───"
    assert drawn(checked(), END) == "●──●──●──●┃─✗─?✗!┈●†+●──●──●──●──●───"


def test_a_lane_in_ascii():
    assert drawn(checked(), END, 4, ASCII_MARKS) == (
        "o---o---o---o-|-x--?x~!:oX+-o---o---o---o---o----"
    )


def test_a_lane_ends_at_the_present():
    record = checked()
    record.beats[5] = Beat(5.0)

    assert drawn(record, 5.4) == "●──●──●──●┃─✗─?◌╌"


def test_a_lane_of_an_answered_ping_shows_that_it_was_asked():
    record = unchecked()
    record.changes += [
        Change(1.5, 1, "LIVE", "PROBING", ""),
        Change(1.501, 1, "PROBING", "LIVE", ""),
    ]

    assert drawn(record, 2.9) == "●──●?─●──"


def test_what_finds_no_room_before_the_next_beats_is_left_out():
    record = unchecked()
    record.changes += [
        Change(1.5, 1, "LIVE", "PROBING", ""),
        Change(1.6, 1, "PROBING", "SUSPECT", ""),
        Change(1.7, 1, "SUSPECT", "DEAD", "unknown"),
        Change(1.8, 2, "CONNECTING", "LIVE", ""),
    ]

    assert drawn(record, 3.0, 2) == "●─●?●!●"


@pytest.mark.parametrize(
    ("seconds", "columns", "scale"),
    [(15, 80, 3), (15, 200, 4), (24, 80, 2), (25, 80, 2), (26, 80, 1), (12, 74, 0), (12, 75, 3)],
)
def test_a_second_has_as_many_columns_as_the_terminal_has_room_for(seconds, columns, scale):
    assert columns_per_second(seconds, columns) == scale


def test_narrow_seconds_are_numbered_by_fives():
    assert axis(15, 2) == "0         5         10        15"


def test_plain_lines_come_as_things_happen():
    record = unchecked()
    record.changes, record.beats = [], []
    record.frozen_at = None
    out = io.StringIO()
    lines = PlainTimeline([record], out)

    lines.show(0.0)
    record.changes.append(Change(0.005, 1, "CONNECTING", "LIVE", ""))
    lines.show(0.1)
    record.frozen_at = 3.5
    lines.close(3.6)

    assert out.getvalue() == (
        "   0.01 s  HTTP/2, no checks   connection 1 is there\n"
        "   3.50 s                      every live connection falls silent\n"
    )


def live(record: Record, colours: bool) -> tuple[LiveTimeline, io.StringIO]:
    out = io.StringIO()
    return LiveTimeline([record, missing()], SECONDS, out, 80, UNICODE_MARKS, colours), out


BLOCK = """\

                    0   1   2   3   4   5   6   7   8   9   10  11  12
HTTP/2, checked     ●                                                 LIVE
HTTP/1.1            did not start, see below

● answered  ✗ lost  ◌ waits  ┃ silence  ? PING  ! SUSPECT  † DEAD  + new
"""


def test_lanes_are_drawn_over_themselves_under_what_has_happened():
    record = checked()
    del record.beats[1:], record.changes[1:]
    record.frozen_at = None
    lanes, out = live(record, colours=False)

    lanes.show(0.01)
    lanes.close(0.02)

    assert out.getvalue() == (
        "\x1b[?25l\x1b[J   0.01 s  HTTP/2, checked     connection 1 is there\n"
        f"{BLOCK}\x1b[6F\x1b[J{BLOCK}\x1b[?25h"
    )


def test_colours_are_left_out_where_they_are_not_wanted():
    plain, colourful = live(checked(), False), live(checked(), True)
    for lanes, _ in (plain, colourful):
        lanes.close(END)

    assert "\x1b[32m●\x1b[0m" in colourful[1].getvalue()
    assert re.sub(r"\x1b\[[0-9;]*m", "", colourful[1].getvalue()) == plain[1].getvalue()


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch) -> Terminal:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    return Terminal()


def test_a_terminal_has_lanes_in_colour(terminal):
    lanes = make_timeline([checked()], 15, terminal)
    lanes.close(END)

    assert isinstance(lanes, LiveTimeline)
    assert "\x1b[32m●\x1b[0m" in terminal.getvalue()


def test_no_color_is_honoured(terminal, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    make_timeline([checked()], 15, terminal).close(END)

    assert re.findall(r"\x1b\[[0-9;]*m", terminal.getvalue()) == []


@pytest.mark.parametrize(("name", "value"), [("TERM", "dumb"), ("COLUMNS", "60")])
def test_a_terminal_that_cannot_show_lanes_has_lines(terminal, monkeypatch, name, value):
    monkeypatch.setenv(name, value)

    assert isinstance(make_timeline([checked()], 15, terminal), PlainTimeline)


def test_a_run_too_long_for_the_terminal_and_other_outputs_have_lines(terminal):
    assert isinstance(make_timeline([checked()], 60, terminal), PlainTimeline)
    assert isinstance(make_timeline([checked()], 15, io.StringIO()), PlainTimeline)


@pytest.mark.parametrize(
    ("encoding", "marks"),
    [("utf-8", UNICODE_MARKS), ("ascii", ASCII_MARKS), ("cp437", ASCII_MARKS), ("?", ASCII_MARKS)],
)
def test_marks_are_those_that_the_encoding_has(encoding, marks):
    assert marks_for(encoding) == marks


# -- the end -----------------------------------------------------------------------------------


def test_the_table_has_a_column_for_each_lane_that_ran():
    assert table([unchecked(), missing(), checked()], END, demo.CAUSES) == [
        "                      HTTP/2, no checks   HTTP/2, checked",
        "-------------------   -----------------   ----------------",
        "beats lost            8 of 12             2 of 12",
        "longest gap           8.99 s              3.35 s",
        "time to detect        never               2.00 s (SUSPECT)",
        "time to recover       never               2.86 s",
        "connections dialled   1                   2",
        "cause of death        none                path_dead",
        "path_dead: nothing that is sent is acknowledged any more",
    ]


def test_the_run_that_was_promised_has_no_faults():
    assert demo._faults([unchecked(), missing(), checked()], END) == []


def test_a_dead_connection_that_answers_is_a_fault():
    record = unchecked()
    record.beats[7] = Beat(7.0, 7.25)

    assert demo._faults([record, missing(), checked()], END) == [
        "Not as expected: HTTP/2, no checks was answered again 3.75 s after the silence",
        "began: its connection was not dead.",
    ]


def test_a_checked_lane_that_does_not_recover_is_a_fault():
    record = unchecked()
    record.name = "HTTP/2, checked"

    assert demo._faults([unchecked(), missing(), record], END) == [
        "Not as expected: HTTP/2, checked was not answered again in this run.",
    ]


def test_a_checked_lane_that_recovers_too_late_is_a_fault():
    on_time, late = checked(), checked()
    on_time.beats[4:] = [Beat(11.0, 3.5 + 4.95 + 1.0 + 2.0)]
    late.beats[4:] = [Beat(11.0, 3.5 + 4.95 + 1.0 + 2.01)]

    assert demo._faults([unchecked(), missing(), on_time], END) == []
    assert demo._faults([unchecked(), missing(), late], END) == [
        "Not as expected: HTTP/2, checked was answered again after 7.96 s only; its",
        "bound, the next beat and 2 s for a loaded machine make 7.95 s.",
    ]


def test_what_was_seen_is_said_with_its_figures(monkeypatch):
    monkeypatch.setattr(demo, "kernel", lambda: {"unacknowledged_s": 924.6})
    http1 = checked()
    http1.name = "HTTP/1.1"

    assert demo._conclusion([unchecked(), http1, checked()], END, dropped=True) == [
        "HTTP/2, no checks: no answer any more, 8 of 12 beats lost, and its pool calls",
        "the connection LIVE. The kernel will give up after about 15 min 25 s.",
        "HTTP/1.1: 2 of 12 beats lost, and answered again 2.86 s after the silence",
        "began.",
        "HTTP/2, checked: 2 of 12 beats lost; its connection was SUSPECT 2.00 s after",
        "the silence began, and answers came again after 2.86 s.",
    ]


def test_a_lane_that_lacks_its_extra_says_which(monkeypatch):
    monkeypatch.setitem(sys.modules, "h11", None)
    text = demo._missing(http2=False)

    assert text == "HTTP/1.1 needs the h11 package: pip install 'h2lite[http1]'"
    assert demo._missing(http2=True) == ""
    record = Record("HTTP/1.1", text)
    lines = demo._conclusion([unchecked(), record, checked()], END, dropped=False)
    assert f"HTTP/1.1 did not run: {text}" in lines


# -- the drawing -------------------------------------------------------------------------------

SVG = "{http://www.w3.org/2000/svg}"


def elements(records: list[Record], end: float = END) -> list[ElementTree.Element]:
    return list(ElementTree.fromstring(draw(records, end, "how & why")).iter())


def test_the_drawing_is_an_svg_with_a_title_and_a_description():
    root, *rest = elements([unchecked(), missing(), checked()])

    texts = {element.get("id"): element.text for element in rest}
    assert (root.tag, root.get("role")) == (f"{SVG}svg", "img")
    assert root.get("aria-labelledby") == "title desc"
    assert texts["title"] == "A connection dies without a word"
    assert texts["desc"] == (
        "HTTP/2, no checks: 8 of 12 beats lost, death not detected, not recovered."
        " HTTP/1.1 did not run: HTTP/1.1 needs <h11>."
        " HTTP/2, checked: 2 of 12 beats lost, SUSPECT after 2.00 s, recovered after 2.86 s."
    )


def test_every_beat_and_every_state_is_drawn():
    found = elements([checked()])

    def count(kind: str) -> int:
        return sum(element.get("class") == kind for element in found)

    # One of each is the legend's.
    assert {kind: count(kind) for kind in ("answered", "lost", "LIVE", "PROBING", "SUSPECT")} == {
        "answered": 10 + 1,
        "lost": 2 + 1,
        "LIVE": 2 + 1,
        "PROBING": 1 + 1,
        "SUSPECT": 1 + 1,
    }
    assert (count("dead"), count("freeze"), count("gap")) == (1, 1, 1 + 1)
    texts = [element.text for element in found if element.tag == f"{SVG}text"]
    assert "DEAD: path_dead" in texts
    assert "3.35 s without an answer" in texts
    assert "how & why" in texts


@pytest.mark.parametrize("end", [0.05, 1.0, 12.0, 120.9])
def test_nothing_is_drawn_outside(end):
    records = [unchecked(), missing(), checked()]
    records[0].beats.append(Beat(11.9))
    root, *rest = elements(records, end)
    _, _, width, height = map(float, str(root.get("viewBox")).split())

    for element in rest:
        for name in ("x", "x1", "x2", "cx"):
            assert 0 <= float(element.get(name, 0)) <= width, ElementTree.tostring(element)
        for name in ("y", "y1", "y2", "cy"):
            assert 0 <= float(element.get(name, 0)) <= height, ElementTree.tostring(element)
        if element.tag == f"{SVG}rect":
            assert float(element.get("x", 0)) + float(element.get("width", 0)) <= width


def test_texts_of_one_line_do_not_meet():
    rows: dict[str, list[tuple[float, float]]] = {}
    for element in elements([unchecked(), missing(), checked()]):
        if element.tag == f"{SVG}text" and element.text:
            x, width = float(element.get("x", 0)), 6.3 * len(element.text)
            x -= width / 2 if element.get("text-anchor") == "middle" else 0
            rows.setdefault(str(element.get("y")), []).append((x, x + width))

    for spans in rows.values():
        spans.sort()
        for (_, ends), (begins, _) in pairwise(spans):
            assert ends < begins
        assert spans[-1][1] < WIDTH


def test_the_drawing_suits_a_dark_page_too():
    text = draw([checked()], END, "")

    assert "@media (prefers-color-scheme: dark)" in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")  # it stands alone


# -- wrong input -------------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", ["11", "121", "12.5", "-12", "soon"])
def test_a_run_too_short_or_too_long_is_refused(capsys, seconds):
    code, out, err = run(capsys, "demo", "--seconds", seconds)

    assert (code, out) == (2, "")
    assert f"{seconds!r} is not a whole number of seconds, 12 to 120" in err


def test_a_drawing_that_cannot_be_written_is_told_before_the_run(capsys, tmp_path):
    path = tmp_path / "none" / "demo.svg"

    code, out, err = run(capsys, "demo", "--svg", str(path))

    assert (code, out) == (2, "")
    assert err == f"h2lite: cannot write {path}: No such file or directory\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_drawing_that_finds_no_room_is_one_line():
    with pytest.raises(UsageError, match=r"^cannot write /dev/full: No space left on device$"):
        demo._write(demo._open("/dev/full"), "<svg/>")


def test_without_an_output_there_is_no_run(capsys, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", None)
        code = main(["demo"])

    assert (code, capsys.readouterr().err) == (2, "h2lite: cannot write to stdout: it is closed\n")


def fake_tool(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.fixture
def tools(tmp_path: Path, monkeypatch) -> Path:
    """The only folder with tools."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(blackhole, "SBIN", ())
    monkeypatch.setattr(sys, "platform", "linux")
    return tmp_path


def test_a_black_hole_needs_linux(capsys, tools, monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")

    assert run(capsys, "demo", "--blackhole") == (
        2, "", "h2lite: --blackhole needs Linux: packets are dropped in a network namespace\n"
    )  # fmt: skip


@pytest.mark.parametrize("there", [(), ("unshare",)])
def test_a_black_hole_needs_its_tools(capsys, tools, there):
    for name in there:
        fake_tool(tools, name, "exit 0")
    name = "nft" if there else "unshare"

    assert run(capsys, "demo", "--blackhole") == (
        2, "", f"h2lite: --blackhole needs {name}, which is not installed here\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("echo unshare: no permission >&2; echo more >&2; exit 1", "unshare: no permission"),
        ("exit 3", "exit code 3"),
    ],
)
def test_a_black_hole_that_the_system_refuses_says_why(capsys, tools, script, reason):
    fake_tool(tools, "nft", "exit 0")
    fake_tool(tools, "unshare", script)

    assert run(capsys, "demo", "--blackhole") == (
        2, "", f"h2lite: --blackhole: unshare is refused here: {reason}\n"
    )  # fmt: skip


def test_the_namespace_is_entered_with_the_same_arguments(capsys, tools, monkeypatch):
    fake_tool(tools, "nft", "exit 0")
    fake_tool(tools, "unshare", "exit 0")
    monkeypatch.setattr(blackhole, "_namespace", lambda: "net:[1]")

    def execv(path: str, command: list[str]) -> None:
        raise SystemExit(f"{path} {command[0]} {command[1:]}")

    monkeypatch.setattr(os, "execv", execv)

    with pytest.raises(SystemExit) as taken:
        main(["demo", "--blackhole", "--seconds", "13", "--svg", "a b.svg"])

    unshare = str(tools / "unshare")
    arguments = ["demo", "--blackhole", "--seconds", "13", "--svg", "a b.svg"]
    command = ["-Urn", "--", sys.executable, "-m", "h2lite", *arguments, "--outside", "net:[1]"]
    assert taken.value.code == f"{unshare} {unshare} {command}"


@needs_linux
def test_no_packet_is_dropped_outside_of_a_namespace_of_our_own():
    with pytest.raises(UsageError, match="this is no namespace of its own"):
        blackhole.BlackHole([80], os.readlink("/proc/self/ns/net"))


def test_the_clients_of_some_servers_are_found_in_the_kernels_table():
    table = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1
   1: 0100007F:C001 0100007F:1F90 01 00000000:00000000 00:00000000 00000000     0        0 2 1
   2: 0100007F:1F90 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0        0 3 1
   3: 0100007F:C002 0100007F:1F90 06 00000000:00000000 00:00000000 00000000     0        0 4 1
   4: 0100007F:C003 0100007F:1F91 01 00000000:00000000 00:00000000 00000000     0        0 5 1
"""

    ports = blackhole.clients_of(frozenset((0x1F90,)), table.splitlines())

    assert ports == [0xC001]


# -- the run itself ----------------------------------------------------------------------------

STRICT = [sys.executable, "-bb", "-W", "error", *COMMAND[1:]]
RUN_S_MAX = 60.0


def play(*arguments: str) -> list[str]:
    """The lines of a run that went as it should."""
    done = subprocess.run(
        [*STRICT, "demo", "--seconds", "12", *arguments],
        capture_output=True, text=True, timeout=RUN_S_MAX,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    return done.stdout.splitlines()


def assert_incident_and_cure(lines: list[str], cause: str) -> None:
    """The silence, then PING, verdict, another connection and an answer, in that order."""
    told = [line[11:] for line in lines if re.match(r" *\d+\.\d\d s  ", line)]
    checked = [line[20:] for line in told if line.startswith("HTTP/2, checked ")]
    since = told.index("                    every live connection falls silent")
    after = [line[20:] for line in told[since:] if line.startswith("HTTP/2, checked ")]
    assert checked[0] == "connection 1 is there"
    order = [
        "a PING asks connection 1: PROBING",
        f"no answer, connection 1 is DEAD: {cause}",
        "connection 2 is there",
    ]
    assert [line for line in after if line in order] == order
    assert re.search(r"beat \d+ is answered", " ".join(after[after.index(order[-1]) :]))
    rows = {line[:19].rstrip(): re.split("   +", line[22:]) for line in lines[-20:]}
    assert (rows["time to detect"][0], rows["time to recover"][0]) == ("never", "never")
    assert rows["connections dialled"][0] == "1"
    assert rows["cause of death"] == ["none", "local", cause]


@pytest.mark.scenario
@pytest.mark.timeout(RUN_S_MAX)
def test_the_demo_shows_incident_and_cure(tmp_path):
    path = tmp_path / "demo.svg"

    lines = play("--svg", str(path))

    assert_incident_and_cure(lines, "peer_hung" if sys.platform == "linux" else "unknown")
    assert ElementTree.parse(path).getroot().tag == f"{SVG}svg"


@pytest.mark.scenario
@pytest.mark.timeout(RUN_S_MAX)
@needs_linux
def test_the_demo_with_really_dropped_packets():
    try:
        blackhole._run([blackhole._tool("unshare"), "-Urn", blackhole._tool("nft"), "-f", "-"],
                       blackhole.RULES)  # fmt: skip
    except UsageError as error:
        pytest.skip(str(error))

    assert_incident_and_cure(play("--blackhole"), "path_dead")


@pytest.mark.scenario
@pytest.mark.timeout(RUN_S_MAX)
@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals here")
def test_ctrl_c_ends_it_and_leaves_terminal_and_drawing_in_order(tmp_path):
    path = tmp_path / "demo.svg"
    ours, theirs = os.openpty()
    environment = {
        **os.environ, "TERM": "xterm", "COLUMNS": "80", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"
    }  # fmt: skip
    with subprocess.Popen(
        [*STRICT, "demo", "--svg", str(path)],
        stdin=theirs, stdout=theirs, stderr=theirs, env=environment, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            os.close(theirs)
            shown = b""
            while "●──".encode() not in shown:
                shown += os.read(ours, 65536)
            process.send_signal(signal.SIGINT)
            shown += read_to_end(ours)
            assert process.wait(PATIENCE_S) == 130
        finally:
            process.kill()
            os.close(ours)

    assert shown.count(b"\x1b[?25l") == 1
    assert shown.endswith(b"\x1b[?25h")
    assert b"Traceback" not in shown
    root = ElementTree.parse(path).getroot()
    assert sum(element.get("class") == "answered" for element in root.iter()) >= 3 + 1


def read_to_end(descriptor: int) -> bytes:
    read = b""
    while True:
        try:
            octets = os.read(descriptor, 65536)
        except OSError:  # so Linux tells that the other end of a terminal is closed
            return read
        if not octets:
            return read
        read += octets
