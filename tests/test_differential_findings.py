"""What conversations with another implementation showed, held against h2lite alone."""

from __future__ import annotations

import pytest

from h2lite import events as ev
from h2lite.errors import ErrorCode
from h2lite.frames import DataFrame, HeadersFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame
from h2lite.settings import SettingId
from tests.pair import POST, begun, block, feed, sent

# What every core of these tests receives is also cut otherwise: see replaying.py.
pytestmark = pytest.mark.usefixtures("every_cut")

ACK = SettingsFrame(ack=True)


def server_below_zero():
    """A server with a stream whose window is lowered, with the ack, to 900 octets below zero."""
    server = begun(client=False)
    feed(server, HeadersFrame(1, block(POST)), DataFrame(1, bytes(1000)))
    server.update_settings({SettingId.INITIAL_WINDOW_SIZE: 100}, 0.0)
    sent(server)
    return server


@pytest.mark.rfc("window-exceeded")
@pytest.mark.parametrize("cut", [None, 1])
def test_an_empty_data_frame_may_end_a_stream_whose_window_is_below_zero(cut):
    # RFC 9113 §6.9.1: it may be sent if there is no available space.
    server = server_below_zero()

    events = feed(server, ACK, DataFrame(1, b"", end_stream=True), cut=cut)

    assert events == [ev.SettingsAcked(), ev.DataReceived(1, b"", True)]
    assert sent(server) == []


def test_padding_alone_still_needs_the_window():
    server = server_below_zero()

    events = feed(server, ACK, DataFrame(1, b"", end_stream=True, pad_length=0))

    assert [type(event) for event in events] == [ev.SettingsAcked, ev.StreamReset]
    assert sent(server) == [RstStreamFrame(1, ErrorCode.FLOW_CONTROL_ERROR)]


@pytest.mark.rfc("window-reduced")
@pytest.mark.parametrize("consumed", [65_534, 85_000])
def test_octets_consumed_before_the_window_was_lowered_are_given_back(consumed):
    # RFC 9113 §6.9.2: the sender waits for WINDOW_UPDATE.  When all that came is consumed, no
    # later call gives an occasion for it, and the stream would stand still for good.
    server = begun(client=False)
    feed(server, HeadersFrame(1, block(POST)))
    for _ in range(10):
        feed(server, DataFrame(1, bytes(consumed // 10)))
    feed(server, DataFrame(1, bytes(consumed % 10)))
    server.data_consumed(1, consumed)
    assert sent(server) == []

    server.update_settings({SettingId.INITIAL_WINDOW_SIZE: 65535}, 0.0)
    frames = sent(server)
    feed(server, ACK)
    frames += sent(server)

    updates = [frame for frame in frames if isinstance(frame, WindowUpdateFrame)]
    assert updates == [WindowUpdateFrame(1, consumed)]
