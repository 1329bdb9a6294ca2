"""`h2lite serve` under each attack of attacks.py: what it answers, and that nobody else notices.

Every test leaves the server alive and without a traceback, its memory within a bound named here,
and an honest client, on connections of its own, answered all along.
"""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable, Iterator

import pytest

from .attacks import ATTACKS, Bystander, Memory, Outcome, Served, Target, needs_proc, served

pytestmark = [pytest.mark.scenario, needs_proc, pytest.mark.timeout(60)]

Record = Callable[[str, object], None]

# Bounds on time are for a machine five times as slow as one that has nothing else to do.
SLOWEST_S_MAX = 2.0  # of the honest client's answers; what is measured is in the JUnit report
# The same while field blocks are decoded, 64 KiB of each client's in a turn of the server's loop,
# before anybody else is looked at again.
HEAVY_S_MAX = 8.0
ENDS_S_MAX = 4.0  # beyond a limit on time, until the server has acted on it

GROWTH_MAX = 8 * 2**20  # of the server's memory, by an attack that is to leave nothing there
KEPT_OCTETS = 2**23  # `kept_octets` of the servers that somebody hoards in
HOARD_MAX = 32 * 2**20  # by one that has ten connections keep KEPT_OCTETS, and 1 MiB each
ALL_GROWTH_MAX = 64 * 2**20  # by all of them together

CALM = r"^GOAWAY ENHANCE_YOUR_CALM"
BORNE = r"^(RST [A-Z_]+ x\d+, )*(\d+ x\d+, )*went on( x\d+)?$"

ANSWERS = {
    "ping_flood": CALM,
    "ping_flood_read": CALM,
    "ping_ack_flood": CALM,
    "settings_flood": CALM,
    "settings_flood_read": CALM,
    "settings_entries": CALM,
    "settings_ack_flood": "^GOAWAY PROTOCOL_ERROR 'SETTINGS ack without SETTINGS'",
    "settings_churn": CALM,
    "window_update_flood": CALM,
    "window_update_closed": CALM,
    "unknown_frame_flood": CALM,
    "goaway_flood": CALM,
    "priority_churn": CALM,
    "resource_loop": CALM,
    "empty_data": CALM,
    "empty_headers": CALM,
    "padding_only": CALM,
    "one_octet_data": BORNE,
    "oversized_frames": BORNE,
    "rapid_reset": CALM,
    "rapid_reset_below": BORNE,
    "reset_flood": CALM,
    "reset_closed_flood": CALM,
    "data_after_reset": CALM,
    "headers_after_reset": CALM,
    "stream_refusals": CALM,
    "made_you_reset_zero_update": CALM,
    "made_you_reset_overflow": CALM,
    "made_you_reset_late_data": CALM,
    "made_you_reset_late_headers": CALM,
    "made_you_reset_short_priority": CALM,
    "made_you_reset_self_dependency": CALM,
    "made_you_reset_length_no_number": CALM,
    "made_you_reset_length_too_long": CALM,
    "made_you_reset_transfer_encoding": CALM,
    "continuation_flood": CALM,
    "continuation_small": CALM,
    "continuation_empty": CALM,
    "continuation_cut": BORNE,
    "continuation_after_reset": CALM,
    "hpack_bomb": CALM,
    "hpack_bomb_below": BORNE,
    "huffman_work": BORNE,
    "indexed_work": BORNE,
    "indexed_crowd": BORNE,
    "empty_header_names": BORNE,
    "data_dribble": CALM,
    "internal_data_buffering": BORNE,
}

HEAVY = (
    "hpack_bomb_below", "huffman_work", "indexed_work", "indexed_crowd", "empty_header_names"
)

# Ends when the client likes, as long as it sends an octet within `stall_timeout`: a handler that
# takes content as it comes may be talking with its client.
ENDLESS = {"slow_body_streamed": BORNE}

# What a server keeps for those who do not take it, and may go on keeping until a time is over.
HOARDS = {
    "zero_window_streams": BORNE,
    "header_echo_hoard": BORNE,
    "upload_hoard": BORNE,
}

UNCOUNTED = ("trailer_hoard", "lines_hoard")

# A limit of each, in seconds, so that no test has to wait for a minute.
HURRY = {
    "preface_timeout": 0.5,
    "handshake_timeout": 0.5,
    "field_block_timeout": 0.5,
    "request_timeout": 0.5,
    "stall_timeout": 0.8,
    "idle_timeout": 0.8,
}
SLOW = {
    "silent": "preface_timeout",
    "slow_preface": "preface_timeout",
    "no_settings": "preface_timeout",
    "half_open_handshakes": "handshake_timeout",
    "slow_handshake": "handshake_timeout",
    "slow_field_block": "field_block_timeout",
    "slow_frame": "field_block_timeout",
    "slow_body": "request_timeout",
    "slow_reader": "stall_timeout",
    "no_reader": "stall_timeout",
    "zero_window_held": "stall_timeout",
    "window_trickle": "stall_timeout",
    "idle_held": "idle_timeout",
    "idle_pinged": "idle_timeout",
}


def limits(**values: float) -> list[str]:
    """The options of `h2lite serve` that set them."""
    return [word for name, value in values.items() for word in ("--limit", f"{name}={value}")]


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served("-q") as process:
        yield process


@pytest.fixture(scope="module")
def hurried() -> Iterator[Served]:
    with served("-q", *limits(**HURRY)) as process:
        yield process


@pytest.fixture(scope="module")
def hurried_tls() -> Iterator[Served]:
    with served("-q", "--tls", *limits(**HURRY)) as process:
        yield process


def attacked(
    server: Served,
    record: Record,
    attack: Callable[[], Outcome],
    growth_max: int = GROWTH_MAX,
    slowest_max: float = SLOWEST_S_MAX,
    fresh_every: int = 10,
) -> Outcome:
    """What the server answers, once all has held that must hold whatever it is."""
    with Bystander(server.url, fresh_every=fresh_every) as bystander:
        bystander.wait()
        memory = Memory(server.pid)
        outcome = attack()
        bystander.wait(2)
        slowest, failures, asked = bystander.slowest, bystander.failures, len(bystander.waits)
    growth = memory.growth if server.is_alive else 0
    record("answer", outcome.answer)
    record("slowest_ms", round(slowest * 1000))
    record("growth_octets", growth)
    assert server.is_alive, outcome
    assert server.faults() == ""
    assert failures == []
    assert asked > 0
    assert slowest < slowest_max, outcome
    assert growth < growth_max, outcome
    return outcome


@pytest.mark.parametrize("name", ANSWERS)
def test_a_flood_is_answered_and_nobody_else_notices(name, server, record_property):
    slowest_max = HEAVY_S_MAX if name in HEAVY else SLOWEST_S_MAX
    growth_max = HOARD_MAX if name == "indexed_crowd" else GROWTH_MAX

    outcome = attacked(
        server,
        record_property,
        lambda: ATTACKS[name](Target(server.url)),
        growth_max=growth_max,
        slowest_max=slowest_max,
    )

    assert re.search(ANSWERS[name], outcome.answer), outcome


@pytest.mark.parametrize("name", HOARDS)
def test_what_is_kept_for_who_does_not_take_it_is_bounded(name, record_property):
    # A server of its own, whose memory nobody has stretched before.
    with served("-q", *limits(kept_octets=KEPT_OCTETS)) as server:
        outcome = attacked(
            server,
            record_property,
            lambda: ATTACKS[name](Target(server.url)),
            growth_max=HOARD_MAX,
            slowest_max=HEAVY_S_MAX,
        )

    assert re.search(HOARDS[name], outcome.answer), outcome


@pytest.mark.parametrize("name", SLOW)
def test_slowness_is_ended_when_its_time_is_over(name, hurried, hurried_tls, record_property):
    target = Target(hurried.url, hurried_tls.url)
    server = hurried_tls if "handshake" in name else hurried

    outcome = attacked(server, record_property, lambda: ATTACKS[name](target))

    # Where one stream alone was slow, it alone may be ended.
    assert outcome.ended or outcome.resets or outcome.responses["408"], outcome
    assert outcome.seconds < HURRY[SLOW[name]] + ENDS_S_MAX


@pytest.mark.parametrize("name", UNCOUNTED)
def test_what_is_kept_besides_content_is_bounded(name, record_property):
    with served("-q", *limits(kept_octets=KEPT_OCTETS)) as process:
        attacked(
            process,
            record_property,
            lambda: ATTACKS[name](Target(process.url)),
            growth_max=HOARD_MAX,
            slowest_max=HEAVY_S_MAX,
        )


def test_what_is_kept_for_some_clients_is_not_refused_to_others(record_property):
    with served("-q") as process:
        attacked(
            process,
            record_property,
            lambda: ATTACKS["section_hoard"](Target(process.url)),
            growth_max=2 * ALL_GROWTH_MAX,
            slowest_max=HEAVY_S_MAX,
        )


@pytest.mark.parametrize("name", ENDLESS)
def test_content_that_trickles_is_borne(name, hurried, record_property):
    target = Target(hurried.url)

    outcome = attacked(hurried, record_property, lambda: ATTACKS[name](target))

    assert re.search(ENDLESS[name], outcome.answer), outcome
    assert not outcome.resets


def test_no_malformed_request_reaches_a_handler(server, record_property):
    outcome = attacked(server, record_property, lambda: ATTACKS["smuggling"](Target(server.url)))

    assert outcome.note == "46 of 46 as they should be"


def test_connections_beyond_the_limit_are_closed_and_the_others_served(record_property):
    with served("-q", *limits(connections=150)) as process:
        outcome = attacked(
            process,
            record_property,
            lambda: ATTACKS["connection_flood"](Target(process.url), count=200),
            fresh_every=0,
        )

    # One of the 150 is the honest client's.
    assert outcome.endings == {"open": 149, "eof": 51}


# Of another port, or at the end, or shown by a test of its own to take more than it should.
APART = {"half_open_handshakes", "slow_handshake", "connection_flood", *UNCOUNTED}


def test_all_attacks_in_a_row_leave_the_server_as_it_was(record_property):
    """Three at once, on one server whose times are short; then more connections than it takes."""
    names: queue.SimpleQueue[str] = queue.SimpleQueue()
    for name in ATTACKS:
        if name not in APART:
            names.put(name)
    outcomes: dict[str, Outcome] = {}
    faults: list[str] = []

    def run(target: Target) -> None:
        while not names.empty():
            try:
                name = names.get_nowait()
            except queue.Empty:
                return
            try:
                outcomes[name] = ATTACKS[name](target)
            except Exception as error:  # noqa: BLE001  told where the test looks
                faults.append(f"{name}: {error!r}")

    def attack(target: Target) -> Outcome:
        threads = [threading.Thread(target=run, args=(target,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return ATTACKS["connection_flood"](target, count=250, seconds=0.5)

    with served("-q", *limits(connections=200, kept_octets=KEPT_OCTETS, **HURRY)) as process:
        attacked(
            process,
            record_property,
            lambda: attack(Target(process.url)),
            growth_max=ALL_GROWTH_MAX,
            slowest_max=2 * HEAVY_S_MAX,
            fresh_every=0,
        )

    assert faults == []
    assert outcomes.keys() == ATTACKS.keys() - APART


def test_each_attack_is_tested_here():
    in_tables = [*ANSWERS, *HOARDS, *UNCOUNTED, *SLOW, *ENDLESS]
    tested = [*in_tables, "section_hoard", "smuggling", "connection_flood"]

    assert sorted(tested) == sorted(ATTACKS)
