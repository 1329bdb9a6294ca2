"""Settings: their first values, their bounds, and when they come into force."""

from __future__ import annotations

import pytest

from h2lite.errors import ErrorCode, PeerError, UsageError
from h2lite.settings import (
    SETTINGS_UNACKED_MAX,
    LocalSettings,
    PeerSettings,
    SettingId,
    check_setting,
    setting_name,
)

HEADER_TABLE_SIZE = 0x1
ENABLE_PUSH = 0x2
MAX_CONCURRENT_STREAMS = 0x3
INITIAL_WINDOW_SIZE = 0x4
MAX_FRAME_SIZE = 0x5
MAX_HEADER_LIST_SIZE = 0x6

INITIALLY = {
    HEADER_TABLE_SIZE: 4096,
    ENABLE_PUSH: 1,
    MAX_CONCURRENT_STREAMS: 2**32 - 1,
    INITIAL_WINDOW_SIZE: 65535,
    MAX_FRAME_SIZE: 16384,
    MAX_HEADER_LIST_SIZE: 2**32 - 1,
}


def values(settings: PeerSettings | LocalSettings) -> dict[int, int]:
    return {identifier: settings[identifier] for identifier in INITIALLY}


@pytest.mark.rfc("settings-supported")
def test_the_identifiers_are_those_of_rfc_9113_section_6_5_2():
    identifiers = {name: value for name, value in vars(SettingId).items() if name.isupper()}

    assert identifiers == {
        "HEADER_TABLE_SIZE": 0x1,
        "ENABLE_PUSH": 0x2,
        "MAX_CONCURRENT_STREAMS": 0x3,
        "INITIAL_WINDOW_SIZE": 0x4,
        "MAX_FRAME_SIZE": 0x5,
        "MAX_HEADER_LIST_SIZE": 0x6,
    }


def test_a_known_setting_is_shown_by_its_name_and_an_unknown_one_as_a_number():
    assert setting_name(0x5) == "MAX_FRAME_SIZE"
    assert setting_name(0x8) == "0x8"
    assert setting_name(0xFE03) == "0xfe03"


@pytest.mark.rfc("settings-initial-values")
@pytest.mark.parametrize(
    "settings",
    [
        PeerSettings(from_server=True),
        PeerSettings(from_server=False),
        LocalSettings(of_server=False),
    ],
)
def test_before_any_settings_the_initial_values_hold(settings):
    assert values(settings) == INITIALLY


IN_BOUNDS = [
    pytest.param(ENABLE_PUSH, [0, 1], marks=pytest.mark.rfc("enable-push-range")),
    pytest.param(
        INITIAL_WINDOW_SIZE, [0, 1, 2**31 - 1], marks=pytest.mark.rfc("initial-window-range")
    ),
    pytest.param(
        MAX_FRAME_SIZE, [2**14, 2**14 + 1, 2**24 - 1], marks=pytest.mark.rfc("max-frame-size-range")
    ),
    (HEADER_TABLE_SIZE, [0, 2**32 - 1]),
    (MAX_CONCURRENT_STREAMS, [0, 2**32 - 1]),
    (MAX_HEADER_LIST_SIZE, [0, 2**32 - 1]),
]


@pytest.mark.rfc("settings-supported")
@pytest.mark.parametrize(("identifier", "lawful"), IN_BOUNDS)
def test_a_value_within_its_bounds_is_taken(identifier, lawful):
    for value in lawful:
        settings = PeerSettings(from_server=False)

        settings.receive(((identifier, value),))

        assert values(settings) == {**INITIALLY, identifier: value}


OUT_OF_BOUNDS = [
    pytest.param(ENABLE_PUSH, 2, 0x1, marks=pytest.mark.rfc("enable-push-range")),
    pytest.param(ENABLE_PUSH, 2**32 - 1, 0x1, marks=pytest.mark.rfc("enable-push-range")),
    pytest.param(INITIAL_WINDOW_SIZE, 2**31, 0x3, marks=pytest.mark.rfc("initial-window-range")),
    pytest.param(
        INITIAL_WINDOW_SIZE, 2**32 - 1, 0x3, marks=pytest.mark.rfc("initial-window-range")
    ),
    pytest.param(MAX_FRAME_SIZE, 0, 0x1, marks=pytest.mark.rfc("max-frame-size-range")),
    pytest.param(MAX_FRAME_SIZE, 2**14 - 1, 0x1, marks=pytest.mark.rfc("max-frame-size-range")),
    pytest.param(MAX_FRAME_SIZE, 2**24, 0x1, marks=pytest.mark.rfc("max-frame-size-range")),
]


@pytest.mark.parametrize("from_server", [False, True])
@pytest.mark.parametrize(("identifier", "value", "error_code"), OUT_OF_BOUNDS)
def test_a_value_past_its_bounds_is_a_connection_error(identifier, value, error_code, from_server):
    settings = PeerSettings(from_server)

    with pytest.raises(PeerError) as caught:
        settings.receive(((identifier, value),))

    assert (caught.value.error_code, caught.value.stream_id) == (error_code, 0)
    assert values(settings) == INITIALLY


@pytest.mark.rfc("enable-push-server")
def test_a_server_may_switch_push_off_and_not_on():
    check_setting(ENABLE_PUSH, 0, from_server=True)
    check_setting(ENABLE_PUSH, 1, from_server=False)
    with pytest.raises(PeerError) as caught:
        check_setting(ENABLE_PUSH, 1, from_server=True)
    assert (caught.value.error_code, caught.value.stream_id) == (ErrorCode.PROTOCOL_ERROR, 0)


@pytest.mark.rfc("unknown-setting")
@pytest.mark.parametrize("identifier", [0x0, 0x7, 0x8, 0x9, 0xFFFF])
def test_an_unknown_setting_changes_nothing(identifier):
    settings = PeerSettings(from_server=True)

    changed = settings.receive(((identifier, 0), (MAX_FRAME_SIZE, 20000), (identifier, 2**32 - 1)))

    assert changed == [(MAX_FRAME_SIZE, 20000)]
    assert values(settings) == {**INITIALLY, MAX_FRAME_SIZE: 20000}


@pytest.mark.rfc("settings-in-order")
def test_of_two_values_for_one_setting_the_later_holds():
    settings = PeerSettings(from_server=True)

    changed = settings.receive(
        ((INITIAL_WINDOW_SIZE, 1), (MAX_FRAME_SIZE, 20000), (INITIAL_WINDOW_SIZE, 2))
    )

    assert changed == [
        (INITIAL_WINDOW_SIZE, 1),
        (MAX_FRAME_SIZE, 20000),
        (INITIAL_WINDOW_SIZE, 2),
    ]
    assert (settings[INITIAL_WINDOW_SIZE], settings[MAX_FRAME_SIZE]) == (2, 20000)


@pytest.mark.rfc("settings-in-order")
def test_a_lawful_value_does_not_make_up_for_an_unlawful_one_before_it():
    with pytest.raises(PeerError):
        PeerSettings(from_server=True).receive(((MAX_FRAME_SIZE, 1), (MAX_FRAME_SIZE, 20000)))


def test_only_what_changed_is_reported():
    settings = PeerSettings(from_server=True)

    assert settings.receive(()) == []
    assert settings.receive(((INITIAL_WINDOW_SIZE, 65535), (MAX_FRAME_SIZE, 20000))) == [
        (MAX_FRAME_SIZE, 20000)
    ]
    assert settings.receive(((MAX_FRAME_SIZE, 20000),)) == []
    assert settings.receive(((MAX_FRAME_SIZE, 16384),)) == [(MAX_FRAME_SIZE, 16384)]


@pytest.mark.rfc("settings-ack-order")
def test_our_settings_come_into_force_oldest_first_each_with_its_ack():
    settings = LocalSettings(of_server=False)
    settings.sent(((INITIAL_WINDOW_SIZE, 1), (MAX_FRAME_SIZE, 20000)))
    settings.sent(((INITIAL_WINDOW_SIZE, 2),))
    assert (settings.unacked, values(settings)) == (2, INITIALLY)

    assert settings.acked() == {INITIAL_WINDOW_SIZE: 65535, MAX_FRAME_SIZE: 16384}
    first = {**INITIALLY, INITIAL_WINDOW_SIZE: 1, MAX_FRAME_SIZE: 20000}
    assert (settings.unacked, values(settings)) == (1, first)

    assert settings.acked() == {INITIAL_WINDOW_SIZE: 1}
    assert (settings.unacked, values(settings)) == (0, {**first, INITIAL_WINDOW_SIZE: 2})


@pytest.mark.rfc("settings-ack-order")
def test_an_ack_for_nothing_is_a_connection_error():
    settings = LocalSettings(of_server=False)
    settings.sent(())
    assert settings.acked() == {}

    with pytest.raises(PeerError) as caught:
        settings.acked()

    assert (caught.value.error_code, caught.value.stream_id) == (ErrorCode.PROTOCOL_ERROR, 0)


def test_the_largest_value_in_use_counts_what_is_on_its_way():
    settings = LocalSettings(of_server=False)
    settings.sent(((INITIAL_WINDOW_SIZE, 100),))
    settings.sent(((INITIAL_WINDOW_SIZE, 300), (INITIAL_WINDOW_SIZE, 200)))
    assert settings.largest(INITIAL_WINDOW_SIZE) == 65535

    assert settings.announced(INITIAL_WINDOW_SIZE) == 200
    assert settings.announced(MAX_FRAME_SIZE) == 16384

    settings.acked()
    assert settings.largest(INITIAL_WINDOW_SIZE) == 300

    settings.acked()
    assert settings.largest(INITIAL_WINDOW_SIZE) == 200
    assert settings.largest(MAX_FRAME_SIZE) == 16384


def test_we_cannot_send_a_setting_that_the_rfc_forbids():
    settings = LocalSettings(of_server=False)

    for unlawful in ((ENABLE_PUSH, 2), (INITIAL_WINDOW_SIZE, 2**31), (MAX_FRAME_SIZE, 2**24)):
        with pytest.raises(UsageError, match="out of bounds"):
            settings.sent(((HEADER_TABLE_SIZE, 0), unlawful))

    with pytest.raises(UsageError, match="out of bounds"):
        LocalSettings(of_server=True).sent(((ENABLE_PUSH, 1),))
    for too_wide in ((HEADER_TABLE_SIZE, 2**32), (2**16, 0), (HEADER_TABLE_SIZE, -1)):
        with pytest.raises(UsageError, match="does not fit"):
            settings.sent((too_wide,))

    assert settings.unacked == 0


def test_no_more_settings_are_sent_than_a_peer_may_leave_unacknowledged():
    settings = LocalSettings(of_server=False)
    for size in range(SETTINGS_UNACKED_MAX):
        settings.sent(((HEADER_TABLE_SIZE, size),))

    with pytest.raises(UsageError):
        settings.sent(())

    assert settings.unacked == SETTINGS_UNACKED_MAX
    settings.acked()
    settings.sent(())
