"""Flow-control windows: counting, and what happens at their edges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2lite.errors import ErrorCode, PeerError
from h2lite.window import ReceiveWindow, SendWindow


def test_octets_sent_are_taken_from_the_window_and_an_update_adds_to_it():
    window = SendWindow(65535)

    window.take(65535)
    assert window.size == 0

    window.widen(10, 1)
    assert window.size == 10


@pytest.mark.rfc("window-overflow")
@pytest.mark.parametrize(("size", "increment"), [(0, 2**31 - 1), (65535, 2**31 - 65536), (-5, 6)])
def test_a_window_may_grow_to_its_largest_size(size, increment):
    window = SendWindow(size)

    window.widen(increment)

    assert window.size == size + increment


@pytest.mark.rfc("window-overflow")
@pytest.mark.parametrize(("size", "increment"), [(1, 2**31 - 1), (65535, 2**31 - 65535)])
@pytest.mark.parametrize("stream_id", [0, 5])
def test_a_window_past_its_largest_size_is_the_fault_of_its_stream(size, increment, stream_id):
    window = SendWindow(size)

    with pytest.raises(PeerError) as caught:
        window.widen(increment, stream_id)

    assert caught.value.error_code == ErrorCode.FLOW_CONTROL_ERROR
    assert caught.value.stream_id == stream_id
    assert window.size == size


@pytest.mark.rfc("initial-window-adjusts")
def test_a_lowered_setting_may_take_a_window_below_zero():
    """The example of RFC 9113 §6.9.2: 60 KB sent, then the setting falls to 16 KB."""
    window = SendWindow(65535)
    window.take(60 * 1024)

    window.widen(16 * 1024 - 65535)

    assert window.size == -44 * 1024
    window.widen(44 * 1024 + 1)
    assert window.size == 1


@pytest.mark.rfc("window-exceeded")
@pytest.mark.parametrize("stream_id", [0, 5])
def test_the_peer_may_fill_a_window_to_the_last_octet_and_no_further(stream_id):
    window = ReceiveWindow(100)
    window.receive(99, stream_id)
    window.receive(1, stream_id)
    window.receive(0, stream_id)

    with pytest.raises(PeerError) as caught:
        window.receive(1, stream_id)

    assert caught.value.error_code == ErrorCode.FLOW_CONTROL_ERROR
    assert caught.value.stream_id == stream_id
    assert (window.size, window.owed, window.limit) == (0, 0, 100)


@pytest.mark.rfc("window-update-small")
def test_credit_is_announced_once_it_is_half_the_window():
    window = ReceiveWindow(100)
    window.receive(80)

    assert window.consume(49) == 0
    assert (window.size, window.owed) == (20, 49)

    assert window.consume(1) == 50
    assert (window.size, window.owed) == (70, 0)

    assert window.consume(30) == 0
    assert (window.size, window.owed) == (70, 30)


def test_nothing_consumed_announces_nothing():
    window = ReceiveWindow(100)

    assert window.consume(0) == 0
    assert (window.size, window.owed) == (100, 0)


@given(st.integers(1, 1000), st.lists(st.integers(1, 1000)))
def test_every_octet_is_in_the_window_unread_or_owed(limit, sizes):
    window = ReceiveWindow(limit)
    unread = 0
    for size in sizes:
        if size <= window.size:
            window.receive(size)
            unread += size
        else:
            used = min(size, unread)
            unread -= used
            assert window.consume(used) >= 0
        assert window.size + unread + window.owed == limit
        assert 0 <= window.owed * 2 < limit
