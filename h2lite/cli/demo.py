"""`h2lite demo`: live connections die without a word; three clients, and which of them notices.

Servers, relays and clients are all in this process, and what is shown was measured in the run.
"""

from __future__ import annotations

import sys
import textwrap
import threading
import time
from contextlib import ExitStack, contextmanager

from ..errors import UsageError
from ..exchange import Reply
from ..health import HealthPolicy
from ..http1 import check_http1
from ..loop import monotonic
from ..relay import Relay
from ..server import Server
from . import DONE, LOSS, blackhole, check_output
from .doctor import describe_seconds, kernel
from .lanes import BEAT_S, BEAT_TIMEOUT_S, Lane, Record, measure
from .timeline import make_timeline, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator, Sequence
    from typing import TextIO

    from .timeline import LiveTimeline, PlainTimeline

FREEZE_S = 3.5  # between two beats
FRAME_S = 0.1  # from one picture to the next
LATE_S_MAX = 2.0  # what a loaded machine may add to a bound
COLUMNS_MAX = 79  # of text
HOST = "127.0.0.1"

# A beat a second is ten times as fast as a node's heartbeat: a tenth of the defaults of these two.
CHECKED = HealthPolicy(ping_after_idle=3.0, ping_timeout=1.5, stale_after=1.5)
UNCHECKED = HealthPolicy(
    ping_after_idle=0, write_stall=0, peer_not_reading=0, hold_when_stale=False
)
# name, policy, HTTP/2: the incident, how it was before HTTP/2, and the cure
LANES = (
    ("HTTP/2, no checks", UNCHECKED, True),
    ("HTTP/1.1", UNCHECKED, False),
    ("HTTP/2, checked", CHECKED, True),
)

INCIDENT = """\
A Kubernetes node was lost for 15 minutes though nothing had crashed: the one HTTP/2 connection \
that carried its heartbeats had died without a word, and each new heartbeat went onto it. Here it \
happens again in {seconds} s: three clients beat once a second, and after {freeze:g} s every live \
connection falls silent ({how}) while new ones get through. A beat without an answer within \
{timeout:g} s is lost."""
RELAYED = "a relay stops copying: no FIN, no RST"
DROPPED = "its packets are dropped"
RULES = """\
HTTP/2, no checks   a lost beat resets its stream, the connection stays in use
HTTP/1.1            a lost beat closes its connection, the next makes another
HTTP/2, checked     after {idle:g} s of silence or a lost beat a PING asks; no ack in
                    {timeout:g} s, and the connection is dead: found within {bound:.2f} s
"""
CAUSES = {
    "local": "the client closed it because of a lost beat",
    "path_dead": "nothing that is sent is acknowledged any more",
    "peer_hung": "the kernel at the other end acknowledges, and nobody answers",
}


def run(options: argparse.Namespace) -> int:
    """Play it, then say what was measured; LOSS when that is not what the text promises."""
    check_output()
    if options.blackhole and options.outside is None:
        blackhole.enter(_arguments(options))
    records = [Record(name, _missing(http2)) for name, _, http2 in LANES]
    play = _Play(records, options.seconds)
    with _drawing(options, play), _stage(records, options) as (lanes, silence):
        for line in _introduction(options):
            print(line, flush=True)
        play.run(lanes, silence, make_timeline(records, options.seconds, sys.stdout))
    faults = _faults(records, play.end)
    for line in (
        "",
        *table(records, play.end, CAUSES),
        "",
        *(faults or _conclusion(records, play.end, options.blackhole)),
    ):
        print(line)
    return LOSS if faults else DONE


class _Play:
    """The run itself: beats, silence, more beats.

    end   seconds from its beginning to its end, or so far
    """

    def __init__(self, records: Sequence[Record], seconds: int) -> None:
        self.records = records
        self.end = 0.0
        self._seconds = seconds

    def run(
        self,
        lanes: Sequence[Lane],
        silence: Callable[[], object],
        timeline: PlainTimeline | LiveTimeline,
    ) -> None:
        """Returns when all beats have ended."""
        began = monotonic()
        for lane in lanes:
            lane.start(began)
        silent = False
        try:
            while True:
                self.end = now = monotonic() - began
                if now >= FREEZE_S and not silent:
                    silent = True
                    for record in self.records:
                        record.frozen_at = now
                    silence()
                timeline.show(now)
                if now >= self._seconds and not any(lane.is_beating for lane in lanes):
                    return
                time.sleep(FRAME_S if silent else min(FRAME_S, max(0.0, FREEZE_S - now)))
        finally:
            timeline.close(self.end)


# -- what is played on -------------------------------------------------------------------------


@contextmanager
def _stage(
    records: Sequence[Record], options: argparse.Namespace
) -> Iterator[tuple[list[Lane], Callable[[], object]]]:
    """Servers, what makes their connections silent, and lanes; all is over when the block is."""
    with ExitStack() as stack:
        ports = {
            True: stack.enter_context(_http2_server()),
            False: stack.enter_context(_http1_server()),
        }
        hole = blackhole.BlackHole(ports.values(), options.outside) if options.blackhole else None
        relays: list[Relay] = []
        lanes: list[Lane] = []
        for record, (_, policy, http2) in zip(records, LANES, strict=True):
            if record.missing:
                continue
            port = ports[http2]
            if hole is None:
                relays.append(stack.enter_context(Relay((HOST, port), HOST)))
                port = relays[-1].port
            beats = int(options.seconds / BEAT_S)
            lane = Lane(record, f"http://{HOST}:{port}/beat", policy, http2, beats)
            stack.callback(lane.close)
            lanes.append(lane)

        def silence() -> None:
            if hole is not None:
                hole.swallow()
            for relay in relays:
                relay.freeze()

        yield lanes, silence


@contextmanager
def _http2_server() -> Iterator[int]:
    server = Server(lambda request: Reply(204), host=HOST)
    # Daemons all: a second Ctrl-C in the middle of the end is not to wait for them.
    thread = threading.Thread(
        target=server.serve_forever, name="h2lite demo, HTTP/2 server", daemon=True
    )
    thread.start()
    try:
        yield server.port
    finally:
        server.stop()
        thread.join()


@contextmanager
def _http1_server() -> Iterator[int]:
    from http.server import BaseHTTPRequestHandler
    from socketserver import ThreadingTCPServer

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 5.0  # or a silent connection would keep its thread

        def do_PUT(self) -> None:
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing: the lane tells."""

    class HTTPServer(ThreadingTCPServer):  # the one of http.server would look its name up
        daemon_threads = True

    with HTTPServer((HOST, 0), Handler) as server:
        thread = threading.Thread(
            target=server.serve_forever,
            args=(FRAME_S,),
            name="h2lite demo, HTTP/1.1 server",
            daemon=True,
        )
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def _missing(http2: bool) -> str:
    if http2:
        return ""
    try:
        check_http1()
    except UsageError as error:
        return str(error)
    return ""


def _arguments(options: argparse.Namespace) -> list[str]:
    """The command line again, for the same in a namespace of its own."""
    arguments = ["demo", "--blackhole", "--seconds", str(options.seconds)]
    return [*arguments, "--svg", options.svg] if options.svg else arguments


# -- what is said ------------------------------------------------------------------------------


def _introduction(options: argparse.Namespace) -> Iterator[str]:
    text = INCIDENT.format(
        seconds=options.seconds,
        freeze=FREEZE_S,
        how=DROPPED if options.blackhole else RELAYED,
        timeout=BEAT_TIMEOUT_S,
    )
    yield from _wrapped(text)
    yield ""
    idle, timeout = CHECKED.ping_after_idle, CHECKED.ping_timeout
    yield RULES.format(idle=idle, timeout=timeout, bound=CHECKED.found_within_s)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, COLUMNS_MAX)


def _faults(records: Sequence[Record], end: float) -> list[str]:
    """What was not as it should have been, a paragraph each; HTTP/1.1 is there to compare."""
    unchecked, checked = measure(records[0], end), measure(records[-1], end)
    found = CHECKED.found_within_s
    assert found is not None
    bound = found + BEAT_S + LATE_S_MAX
    faults = []
    if unchecked.recovered is not None:
        faults.append(
            f"{records[0].name} was answered again {unchecked.recovered:.2f} s after the silence"
            " began: its connection was not dead."
        )
    if checked.recovered is None:
        faults.append(f"{records[-1].name} was not answered again in this run.")
    elif checked.recovered > bound:
        faults.append(
            f"{records[-1].name} was answered again after {checked.recovered:.2f} s only; its"
            f" bound, the next beat and {LATE_S_MAX:g} s for a loaded machine make {bound:.2f} s."
        )
    return [line for fault in faults for line in _wrapped(f"Not as expected: {fault}")]


def _conclusion(records: Sequence[Record], end: float, dropped: bool) -> list[str]:
    """What was seen, in words; nothing was amiss."""
    unchecked, http1, checked = (measure(record, end) for record in records)
    names = [record.name for record in records]
    lines = _wrapped(
        f"{names[0]}: no answer any more, {unchecked.lost} of {unchecked.beats} beats lost, and its"
        f" pool calls the connection {records[0].state}. {_kernel_patience(dropped)}"
    )
    if records[1].missing:
        lines.append(f"{names[1]} did not run: {records[1].missing}")
    elif http1.recovered is None:
        lines += _wrapped(f"{names[1]}: no answer any more, which is not its way.")
    else:
        lines += _wrapped(
            f"{names[1]}: {http1.lost} of {http1.beats} beats lost, and answered again"
            f" {http1.recovered:.2f} s after the silence began."
        )
    assert checked.recovered is not None
    found = ""
    if checked.detected is not None:
        seconds, state = checked.detected
        found = f"its connection was {state} {seconds:.2f} s after the silence began, and "
    lines += _wrapped(
        f"{names[2]}: {checked.lost} of {checked.beats} beats lost; {found}answers came again"
        f" after {checked.recovered:.2f} s."
    )
    return lines


def _kernel_patience(dropped: bool) -> str:
    """What a client without checks may hope for."""
    patience = kernel()["unacknowledged_s"]
    told = "in its own time" if patience is None else f"after about {describe_seconds(patience)}"
    if dropped:
        return f"The kernel will give up {told}."
    return (
        "The kernel never gives up where a relay's acknowledges what is sent; where packets are"
        f" dropped, {told}."
    )


# -- the drawing -------------------------------------------------------------------------------


@contextmanager
def _drawing(options: argparse.Namespace, play: _Play) -> Iterator[None]:
    """The file that --svg asks for, opened before the run; what was seen of it is drawn after."""
    if options.svg is None:
        yield
        return
    file = _open(options.svg)
    try:
        yield
    finally:
        _write(file, _picture(options, play) if play.end else "")


def _open(path: str) -> TextIO:
    try:
        return open(path, "w", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror or error}") from error


def _write(file: TextIO, text: str) -> None:
    try:
        with file:
            file.write(text)
    except OSError as error:
        raise UsageError(f"cannot write {file.name}: {error.strerror or error}") from error


def _picture(options: argparse.Namespace, play: _Play) -> str:
    from .timeline_svg import draw

    how = DROPPED if options.blackhole else RELAYED
    words = f"Three clients beat once a second; after {FREEZE_S:g} s live connections fall silent"
    return draw(play.records, play.end, f"{words} ({how})")
