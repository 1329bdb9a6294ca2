"""One stream: every state and every signal, and what waits to be sent."""

from __future__ import annotations

import pytest

from h2lite import stream as s
from h2lite.errors import ErrorCode, PeerError, UsageError
from h2lite.fields import Section
from h2lite.stream import SIGNAL_NAMES, STATE_NAMES, TRANSITIONS, Stream
from h2lite.window import ReceiveWindow

# RFC 9113 §5.1, figure 2, without push: each arrow, read from the figure and its text.
ARROWS = {
    ("idle", "send HEADERS"): "open",
    ("idle", "receive HEADERS"): "open",
    ("open", "send HEADERS"): "open",
    ("open", "receive HEADERS"): "open",
    ("open", "send DATA"): "open",
    ("open", "receive DATA"): "open",
    ("open", "send END_STREAM"): "half-closed (local)",
    ("open", "receive END_STREAM"): "half-closed (remote)",
    ("open", "send RST_STREAM"): "closed",
    ("open", "receive RST_STREAM"): "closed",
    ("half-closed (local)", "receive HEADERS"): "half-closed (local)",
    ("half-closed (local)", "receive DATA"): "half-closed (local)",
    ("half-closed (local)", "receive END_STREAM"): "closed",
    ("half-closed (local)", "send RST_STREAM"): "closed",
    ("half-closed (local)", "receive RST_STREAM"): "closed",
    ("half-closed (remote)", "send HEADERS"): "half-closed (remote)",
    ("half-closed (remote)", "send DATA"): "half-closed (remote)",
    ("half-closed (remote)", "send END_STREAM"): "closed",
    ("half-closed (remote)", "send RST_STREAM"): "closed",
    ("half-closed (remote)", "receive RST_STREAM"): "closed",
}
PAIRS = [(state, signal) for state in STATE_NAMES for signal in SIGNAL_NAMES]


def a_stream(stream_id: int) -> Stream:
    stream = Stream(may_send_content=True)
    stream.open(stream_id, 100, ReceiveWindow(100))
    return stream


def in_state(name: str) -> Stream:
    stream = a_stream(5)
    stream.state = STATE_NAMES.index(name)
    return stream


def waiting(stream: Stream) -> tuple[object, ...]:
    return list(stream.outgoing), stream.queued_octets, stream.trailers


def act(stream: Stream, signal: str) -> None:
    """Let the one who does it do it."""
    number = SIGNAL_NAMES.index(signal)
    if signal.startswith("send"):
        stream.send(number)
    else:
        stream.receive(number)


@pytest.mark.rfc("half-closed-local-sends")
def test_the_table_is_the_rfcs_figure():
    table = {
        (STATE_NAMES[state], SIGNAL_NAMES[signal]): STATE_NAMES[after]
        for (state, signal), after in TRANSITIONS.items()
    }

    assert table == ARROWS
    assert len(PAIRS) == 40


@pytest.mark.parametrize(("state", "signal"), [pair for pair in PAIRS if pair in ARROWS])
def test_what_the_figure_allows_leads_to_its_next_state(state, signal):
    stream = in_state(state)

    act(stream, signal)

    assert STATE_NAMES[stream.state] == ARROWS[state, signal]


REFUSED = [pair for pair in PAIRS if pair not in ARROWS]


@pytest.mark.rfc("half-closed-local-sends", "data-sent-open")
@pytest.mark.parametrize(
    ("state", "signal"), [pair for pair in REFUSED if pair[1].startswith("send")]
)
def test_what_we_may_not_send_is_the_callers_mistake_and_changes_nothing(state, signal):
    stream = in_state(state)

    with pytest.raises(UsageError) as caught:
        act(stream, signal)

    assert str(caught.value) == f"cannot {signal} on stream 5, {state}"
    assert STATE_NAMES[stream.state] == state


@pytest.mark.rfc("half-closed-remote-frames")
@pytest.mark.parametrize(
    ("state", "signal"), [pair for pair in REFUSED if pair[1].startswith("receive")]
)
def test_what_the_peer_may_not_send_is_a_stream_error(state, signal):
    stream = in_state(state)

    with pytest.raises(PeerError) as caught:
        act(stream, signal)

    assert caught.value.error_code == ErrorCode.STREAM_CLOSED
    assert caught.value.stream_id == 5
    assert caught.value.message == f"{signal} on stream 5, {state}"
    assert STATE_NAMES[stream.state] == state


@pytest.mark.parametrize("state", [s.IDLE, s.OPEN, s.HALF_CLOSED_REMOTE])
def test_content_waits_in_its_order(state):
    stream = a_stream(1)
    stream.state = state

    stream.queue(b"abc", False)
    stream.queue(b"", False)
    stream.queue(memoryview(b"de"), True)

    assert [bytes(data) for data in stream.outgoing] == [b"abc", b"de"]
    assert stream.queued_octets == 5
    assert stream.end_queued


@pytest.mark.parametrize("data", [b"", b"more"])
@pytest.mark.parametrize("end_stream", [False, True])
def test_nothing_is_queued_behind_the_end(data, end_stream):
    stream = a_stream(1)
    stream.queue(b"abc", True)

    with pytest.raises(UsageError, match="stream 1 takes no more content"):
        stream.queue(data, end_stream)

    assert [bytes(chunk) for chunk in stream.outgoing] == [b"abc"]
    assert stream.queued_octets == 3


@pytest.mark.parametrize("state", [s.HALF_CLOSED_LOCAL, s.CLOSED])
def test_nothing_is_queued_on_a_stream_that_has_ended_here(state):
    stream = a_stream(1)
    stream.state = state

    with pytest.raises(UsageError):
        stream.queue(b"abc", False)

    assert (list(stream.outgoing), stream.queued_octets, stream.end_queued) == ([], 0, False)


def test_a_dropped_stream_is_closed_and_forgets_what_was_not_sent():
    stream = in_state("open")
    stream.queue(b"abc", True)
    stream.trailers = Section([(b"a", b"b")])

    stream.drop()

    assert stream.state == s.CLOSED
    assert waiting(stream) == ([], 0, None)
