"""h2lite against python-hyper's h2, in memory: either role, every cut, agreement on everything.

Each conversation is held once with the octets whole and once cut; the events must be the same.
The random ones take their number from H2LITE_DIFFERENTIAL; a test's name holds the seed.
"""

from __future__ import annotations

import inspect
import os
import random
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from h2lite.connection import PINGS_IN_FLIGHT_MAX
from h2lite.errors import ErrorCode
from h2lite.fields import join_cookies
from h2lite.limits import DEFAULT_LIMITS
from h2lite.settings import SettingId
from tests.pair import GET, OK, POST, TRAILERS, pieces

from .beside_h2 import Cut, End, Exchange, Link, Message, Ours, Seen, Theirs

if TYPE_CHECKING:
    from h2lite.events import Fields

pytestmark = [pytest.mark.peer]

CONVERSATIONS = int(os.environ.get("H2LITE_DIFFERENTIAL", "200"))

MIB = 2**20
HEAD: Fields = [(b":method", b"HEAD"), *GET[1:]]
INTERIM: Fields = [(b":status", b"103"), (b"link", b"</style.css>; rel=preload")]
EIGHT_BITS = b"&*,;XZ"  # the length of their codes (RFC 7541, appendix B)


def whole(octets: bytes) -> Iterator[bytes]:
    yield octets


def octet_by_octet(octets: bytes) -> Iterator[bytes]:
    yield from pieces(octets, 1)


def at_random(seed: int) -> Cut:
    """Cuts of all sizes, at places that are the same for one seed."""
    rng = random.Random(seed)

    def cut(octets: bytes) -> Iterator[bytes]:
        at = 0
        while at < len(octets):
            step = rng.choice((1, 2, 8, 9, 10, 100, 1000, 30000))
            yield octets[at : at + step]
            at += step

    return cut


CUTS = {
    "octet by octet": lambda: octet_by_octet,
    "cut by seed 1": lambda: at_random(1),
    "cut by seed 2": lambda: at_random(2),
    "cut by seed 3": lambda: at_random(3),
}
EVERY = (*CUTS,)
COARSE = EVERY[1:]
CLIENT, SERVER = "h2lite client", "h2lite server"


def conversation(
    *, roles: tuple[str, ...] = (CLIENT, SERVER), cuts: tuple[str, ...] = EVERY
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make a test of what is said over `connect()`: in these roles, whole and cut."""

    def decorate(scenario: Callable[..., None]) -> Callable[..., None]:
        def test(role: str, cut: str, **arguments: Any) -> None:
            logs = []
            for make_cut in (lambda: whole, CUTS[cut]):
                links: list[Link] = []
                scenario(connector(role == CLIENT, make_cut(), links), **arguments)
                logs.append([(link.ours.log, link.theirs.log) for link in links])
            assert logs[0] == logs[1]

        names = ["role", "cut", *[*inspect.signature(scenario).parameters][1:]]
        kind = inspect.Parameter.KEYWORD_ONLY
        signature = inspect.Signature([inspect.Parameter(name, kind) for name in names])
        test.__signature__ = signature  # type: ignore[attr-defined]
        test.__name__, test.__doc__ = scenario.__name__, scenario.__doc__
        test.__dict__.update(scenario.__dict__)
        pytest.mark.parametrize("role", roles)(test)
        pytest.mark.parametrize("cut", cuts)(test)
        return test

    return decorate


def connector(ours_is_client: bool, cut: Cut, links: list[Link]) -> Callable[..., Link]:
    def connect(
        ours: dict[int, int] | None = None, theirs: dict[int, int] | None = None, **options: bool
    ) -> Link:
        """A link whose ends have exchanged their prefaces with these settings."""
        link = Link(
            Ours(ours_is_client, ours), Theirs(not ours_is_client, theirs, **options), cut
        )
        links.append(link)
        link.pump()
        return link

    return connect


def some_octets(count: int, seed: int = 9113) -> bytes:
    return random.Random(seed).randbytes(count)


def some_letters(count: int, seed: int = 7541) -> bytes:
    """A field value that HPACK makes no shorter."""
    return some_octets(count, seed).translate(bytes(EIGHT_BITS[at % 6] for at in range(256)))


def some_lines(count: int) -> Fields:
    """Field lines of 1000 octets that HPACK makes no shorter; its coder is slow on longer ones."""
    return [(b"x-line-%d" % seed, some_letters(1000, seed)) for seed in range(count)]


def asked(link: Link, fields: Fields = GET, end: bool = True) -> tuple[Exchange, Exchange]:
    """A request that has arrived, as its client and as its server know it."""
    exchange = link.client.request(fields, end)
    link.pump()
    return exchange, link.server.exchanges[max(link.server.exchanges)]


# -- messages --------------------------------------------------------------------------------


@conversation()
def test_a_request_without_content_gets_its_response(connect):
    link = connect()

    client, server = asked(link)
    link.server.respond(server, OK)
    link.server.send(server, b"hello", end=True)
    link.pump()

    assert server.received == Message(("request", GET), ended=True)
    assert client.received == Message(("response", OK), content=b"hello", ended=True)
    link.assert_agreement()


@conversation()
def test_a_response_may_end_with_its_header_section_or_with_empty_data(connect):
    link = connect()

    for in_section in (True, False):
        client, server = asked(link, POST, end=False)
        link.client.send(client, b"", end=True)
        link.pump()
        link.server.respond(server, OK, end=in_section)
        if not in_section:
            link.pump()
            link.server.send(server, b"", end=True)
        link.pump()
        assert client.complete
        assert server.complete

    link.assert_agreement()


@conversation()
def test_trailers_end_the_request_and_the_response(connect):
    link = connect()

    client, server = asked(link, POST, end=False)
    link.client.send(client, b"question")
    link.client.send_trailers(client, TRAILERS)
    link.pump()
    link.server.respond(server, OK)
    link.server.send(server, b"answer")
    link.server.send_trailers(server, TRAILERS)
    link.pump()

    trailers = ("trailers", TRAILERS)
    asked_for = Message(("request", POST), trailers, content=b"question", ended=True)
    assert server.received == asked_for
    assert client.received == Message(("response", OK), trailers, content=b"answer", ended=True)
    link.assert_agreement()


@conversation()
def test_interim_responses_come_before_the_final_one(connect):
    link = connect()
    proceed = [(b":status", b"100")]

    client, server = asked(link, POST, end=False)
    link.server.respond(server, proceed)
    link.pump()
    link.client.send(client, b"content", end=True)
    link.server.respond(server, INTERIM)
    link.server.respond(server, INTERIM)
    link.server.respond(server, OK, end=True)
    link.pump()

    interims = [("interim", proceed), ("interim", INTERIM), ("interim", INTERIM)]
    assert client.received == Message(*interims, ("response", OK), ended=True)
    link.assert_agreement()


@conversation()
def test_the_response_to_head_declares_content_and_has_none(connect):
    link = connect()
    response = [*OK, (b"content-length", b"12345")]

    client, server = asked(link, HEAD)
    link.server.respond(server, response, end=True)
    link.pump()

    assert client.received == Message(("response", response), ended=True)
    link.assert_agreement()


@conversation()
@pytest.mark.parametrize("status", [b"204", b"304"])
@pytest.mark.parametrize("in_section", [True, False], ids=["HEADERS", "empty DATA"])
def test_responses_without_content_end_at_once(connect, status, in_section):
    link = connect()
    response = [(b":status", status), (b"server", b"a")]

    client, server = asked(link)
    link.server.respond(server, response, end=in_section)
    if not in_section:
        link.server.send(server, b"", end=True)
    link.pump()

    assert client.received == Message(("response", response), ended=True)
    link.assert_agreement()


@conversation(roles=(CLIENT,))
def test_a_304_may_declare_the_content_it_does_not_have(connect):
    # RFC 9113 §8.1.1; h2 as a client would call it malformed, so it is only heard as a server.
    link = connect()
    response = [(b":status", b"304"), (b"content-length", b"12345")]

    client, server = asked(link)
    link.server.respond(server, response, end=True)
    link.pump()

    assert client.received == Message(("response", response), ended=True)
    link.assert_agreement()


@conversation()
def test_declared_content_is_counted_alike(connect):
    link = connect()
    content = some_octets(3000)
    declared = (b"content-length", b"3000")

    client, server = asked(link, [*POST, declared], end=False)
    link.client.send(client, content[:1000])
    link.client.send(client, content[1000:], end=True)
    link.server.respond(server, [*OK, declared])
    link.server.send(server, content)
    link.server.send_trailers(server, TRAILERS)
    link.pump()

    assert client.received.content == server.received.content == content
    link.assert_agreement()


# -- content and windows ---------------------------------------------------------------------


def move_in_portions(link: Link, receiver: End) -> int:
    """Pump, reading only when nothing moves any more; how many times the windows were opened."""
    receiver.read_at_once = False
    openings = 0
    link.pump()
    while any(exchange.unread for exchange in receiver.exchanges.values()):
        receiver.consume_all()
        link.pump()
        openings += 1
    return openings


@conversation(cuts=COARSE)
def test_a_large_upload_closes_the_windows_many_times(connect):
    link = connect()
    content = some_octets(5 * MIB + 12345)

    client, server = asked(link, POST, end=False)
    link.client.send(client, content, end=True)
    openings = move_in_portions(link, link.server)
    link.server.respond(server, OK, end=True)
    link.pump()

    assert openings >= 6
    assert server.received == Message(("request", POST), content=content, ended=True)
    link.assert_agreement()


@conversation(cuts=COARSE)
def test_a_large_download_closes_the_windows_many_times(connect):
    link = connect()
    content = some_octets(5 * MIB + 12345)

    client, server = asked(link)
    link.server.respond(server, OK)
    link.server.send(server, content, end=True)
    openings = move_in_portions(link, link.client)

    assert openings >= 6
    assert client.received == Message(("response", OK), content=content, ended=True)
    link.assert_agreement()


@conversation(cuts=COARSE[:1])
def test_what_lies_unread_closes_the_connections_window(connect):
    link = connect(ours={SettingId.INITIAL_WINDOW_SIZE: 32 * MIB})
    content = some_octets(24 * MIB)
    link.ours.read_at_once = False

    client, server = asked(link, POST, end=False)
    sender, exchange = (link.client, client) if link.server is link.ours else (link.server, server)
    if sender is link.server:
        sender.respond(exchange, OK)
    sender.send(exchange, content)
    link.pump()

    received = link.ours.exchanges[1].received
    assert DEFAULT_LIMITS.unread_octets < len(received.content) < len(content)
    assert link.theirs.conn.outbound_flow_control_window == 0
    link.assert_agreement_so_far()

    sender.send(exchange, b"the end", end=True)
    assert move_in_portions(link, link.ours) >= 2
    assert received.content == content + b"the end"


@conversation(cuts=COARSE)
@pytest.mark.parametrize("sender", ["client", "server"])
def test_many_streams_share_the_windows(connect, sender):
    link = connect()
    contents = [some_octets(20_000 + 1000 * number, seed=number) for number in range(40)]

    exchanges = [asked(link, POST, end=False) for _ in contents]
    for client, server in exchanges:
        link.server.respond(server, OK, end=sender == "client")
        if sender == "server":
            link.client.send(client, b"", end=True)
    speaker, listener = link.client, link.server
    if sender == "server":
        speaker, listener = listener, speaker
    for start in range(0, 60_000, 7000):
        for (client, server), content in zip(exchanges, contents, strict=True):
            exchange = client if sender == "client" else server
            if start < len(content):
                end = start + 7000 >= len(content)
                speaker.send(exchange, content[start : start + 7000], end)
    move_in_portions(link, listener)

    heard = [server if sender == "client" else client for client, server in exchanges]
    assert [exchange.received.content for exchange in heard] == contents
    assert all(client.complete and server.complete for client, server in exchanges)
    link.assert_agreement()


@conversation()
def test_many_small_exchanges_interleave(connect):
    link = connect()

    clients = [link.client.request(POST, end=False) for _ in range(20)]
    link.pump()
    servers = [link.server.exchanges[stream_id] for stream_id in range(1, 41, 2)]
    for turn in range(4):
        for number in random.Random(turn).sample(range(20), 20):
            word = b"%d/%d " % (number, turn)
            link.client.send(clients[number], word, end=turn == 3)
            if turn == 0:
                link.server.respond(servers[number], OK)
            link.server.send(servers[number], word, end=turn == 3)
        link.pump()

    said = [b"".join(b"%d/%d " % (number, turn) for turn in range(4)) for number in range(20)]
    assert [exchange.received.content for exchange in clients] == said
    assert [exchange.received.content for exchange in servers] == said
    link.assert_agreement()


@conversation()
@pytest.mark.parametrize("pad", [0, 1, 255])
def test_padding_counts_for_the_windows_and_for_nothing_else(connect, pad):
    link = connect(ours={SettingId.INITIAL_WINDOW_SIZE: 2000})
    content = some_octets(300)

    client, server = asked(link, POST, end=False)
    link.server.respond(server, OK)
    exchange = link.theirs.exchanges[1]
    exchange.pad = pad
    for _ in range(20):
        link.theirs.send(exchange, content)
        link.pump()
    link.theirs.send(exchange, b"", end=True)
    link.pump()

    assert link.ours.exchanges[1].received.content == content * 20
    link.ours.send(link.ours.exchanges[1], b"", end=True)
    link.pump()
    assert client.complete
    assert server.complete
    link.assert_agreement()


# -- field sections --------------------------------------------------------------------------


@conversation(cuts=EVERY[:2])
def test_big_field_sections_go_in_continuations(connect):
    link = connect()
    few, many = some_lines(17), some_lines(50)

    client, server = asked(link, [*POST, *many], end=False)
    link.client.send_trailers(client, few)
    link.server.respond(server, [*INTERIM, *few])
    link.server.respond(server, [*OK, *many])
    link.server.send_trailers(server, few)
    link.pump()

    assert server.received == Message(("request", [*POST, *many]), ("trailers", few), ended=True)
    assert client.received == Message(
        ("interim", [*INTERIM, *few]),
        ("response", [*OK, *many]),
        ("trailers", few),
        ended=True,
    )
    link.assert_agreement()


@conversation()
def test_repeated_sections_come_from_the_dynamic_table(connect):
    link = connect()
    request = [*GET, (b"user-agent", some_letters(200)), (b"x-same", b"same")]
    response = [*OK, (b"etag", some_letters(200)), (b"date", b"today")]
    blocks = []

    for number in range(10):
        exchange = link.client.request([*request, (b"x-number", b"%d" % number)])
        octets = link.client.give()
        blocks.append(len(octets))
        link.server.take(octets)
        server = link.server.exchanges[1 + 2 * number]
        link.server.respond(server, [*response, (b"x-number", b"%d" % number)], end=True)
        link.pump()
        assert exchange.complete

    assert blocks[0] > 150
    assert max(blocks[1:]) < 40
    link.assert_agreement()


@conversation()
@pytest.mark.parametrize("setter", ["ours", "theirs"])
@pytest.mark.parametrize("sizes", [(0,), (0, 4096), (100, 50, 8192), (65536, 4096, 0)], ids=str)
def test_a_changed_header_table_size_keeps_both_tables_alike(connect, setter, sizes):
    link = connect()
    fields = [(b"x-%d" % number, b"value %d" % number) for number in range(12)]

    def exchange(number: int) -> None:
        _, server = asked(link, [*GET, *fields[: number + 3], (b"x-turn", b"%d" % number)])
        link.server.respond(server, [*OK, *fields[: number + 5]], end=True)
        link.pump()

    exchange(0)
    for number, size in enumerate(sizes, 1):
        getattr(link, setter).update_settings({SettingId.HEADER_TABLE_SIZE: size})
        link.pump()
        exchange(2 * number)
        exchange(2 * number + 1)

    link.assert_agreement()


@conversation()
def test_table_sizes_that_change_between_two_blocks_are_all_told(connect):
    link = connect()
    _, server = asked(link, [*GET, (b"x-same", b"same")])
    link.server.respond(server, [*OK, (b"x-same", b"same")], end=True)
    for size in (4096, 0, 300, 4096):
        for end in (link.ours, link.theirs):
            end.update_settings({SettingId.HEADER_TABLE_SIZE: size})
        link.pump()

    for _ in range(3):
        _, server = asked(link, [*GET, (b"x-same", b"same")])
        link.server.respond(server, [*OK, (b"x-same", b"same")], end=True)
        link.pump()

    link.assert_agreement()


@conversation()
@pytest.mark.parametrize("joined_by_h2", [True, False])
def test_cookies_come_in_crumbs_and_are_joined(connect, joined_by_h2):
    link = connect(normalize_inbound_headers=joined_by_h2)
    crumbs = [(b"cookie", b"a=1"), (b"accept", b"*/*"), (b"cookie", b"b=2"), (b"cookie", b"c")]
    request = [*GET, *crumbs]

    _, server = asked(link, request)

    ((_, received),) = server.received.sections
    assert (b"cookie", b"a=1; b=2; c") in join_cookies(received)
    if link.server is link.ours or not joined_by_h2:
        assert received == request
    else:
        assert sorted(received) == sorted(join_cookies(request))


@conversation(roles=(SERVER,))
def test_a_cookie_that_h2_splits_arrives_whole_when_joined(connect):
    link = connect(split_outbound_cookies=True)

    _, server = asked(link, [*GET, (b"cookie", b"a=1; b=2; c=3")])

    ((_, received),) = server.received.sections
    assert received[-3:] == [(b"cookie", b"a=1"), (b"cookie", b"b=2"), (b"cookie", b"c=3")]
    assert join_cookies(received)[-1] == (b"cookie", b"a=1; b=2; c=3")


@conversation(roles=(SERVER,))
def test_priority_is_read_and_changes_nothing(connect):
    link = connect()
    link.theirs.conn.prioritize(7, weight=256, depends_on=0, exclusive=True)
    first = link.theirs.request(POST, False, priority_weight=9, priority_depends_on=7)
    link.theirs.conn.prioritize(1, weight=1, depends_on=3)
    second = link.theirs.request(GET, True, priority_exclusive=True)
    link.pump()

    for exchange in [*link.ours.exchanges.values()]:
        link.ours.respond(exchange, OK, end=True)
    link.theirs.send(first, b"content", end=True)
    link.theirs.conn.prioritize(1, weight=7)
    link.pump()
    link.theirs.conn.prioritize(1, weight=8)
    link.pump()

    assert first.complete
    assert second.complete
    link.assert_agreement()


# -- settings --------------------------------------------------------------------------------


@conversation(cuts=COARSE[:1])
@pytest.mark.parametrize("setter", ["ours", "theirs"])
def test_a_changed_max_frame_size_bounds_what_comes_after(connect, setter):
    link = connect()
    big = some_lines(40)

    for size in (2**24 - 1, 20_000, 16384):
        getattr(link, setter).update_settings({SettingId.MAX_FRAME_SIZE: size})
        client, server = asked(link, [*POST, *big], end=False)
        link.client.send(client, some_octets(70_000), end=True)
        link.server.respond(server, [*OK, *big])
        link.server.send(server, some_octets(70_000), end=True)
        link.pump()
        assert client.complete
        assert server.complete

    link.assert_agreement()


@conversation(cuts=COARSE)
@pytest.mark.parametrize("setter", ["ours", "theirs"])
@pytest.mark.parametrize("sizes", [(100, 70_000), (70_000, 5, 0, 3000), (0, 2**20)], ids=str)
def test_a_changed_initial_window_size_moves_the_windows_of_open_streams(connect, setter, sizes):
    # RFC 9113 §6.9.3: a sender whose window was lowered waits for WINDOW_UPDATE.  h2 goes on
    # judging by the larger window what is worth one, so here each consumption is.
    link = connect(credit_by_hand=True)
    content = some_octets(150_000)
    link.ours.read_at_once = link.theirs.read_at_once = False

    client, server = asked(link, POST, end=False)
    link.client.send(client, content)
    link.server.respond(server, OK)
    link.server.send(server, content)
    link.pump()
    for size in sizes:
        getattr(link, setter).update_settings({SettingId.INITIAL_WINDOW_SIZE: size})
        link.pump()
        link.assert_agreement_so_far()
        for end in (link.ours, link.theirs):
            end.consume_all()
        link.pump()
        link.assert_agreement_so_far()
    link.client.send(client, b"", end=True)
    link.server.send(server, b"", end=True)
    link.ours.read_at_once = link.theirs.read_at_once = True
    for end in (link.ours, link.theirs):
        end.consume_all()
    link.pump()

    assert client.received.content == server.received.content == content
    link.assert_agreement()


@conversation()
@pytest.mark.parametrize("setter", ["ours", "theirs"])
def test_settings_are_told_and_acknowledged_both_ways(connect, setter):
    link = connect()
    changed = {
        SettingId.HEADER_TABLE_SIZE: 1000,
        SettingId.INITIAL_WINDOW_SIZE: 100_000,
        SettingId.MAX_FRAME_SIZE: 20_000,
        SettingId.MAX_CONCURRENT_STREAMS: 7,
        SettingId.MAX_HEADER_LIST_SIZE: 50_000,
    }
    speaker, listener = link.ours, link.theirs
    if setter == "theirs":
        speaker, listener = listener, speaker
    speaker.log.clear()
    listener.log.clear()

    speaker.update_settings(changed)
    link.pump()

    assert listener.log == [Seen("settings", 0, changed)]
    assert speaker.log == [Seen("settings ack", 0, None)]


@conversation()
def test_the_limit_of_concurrent_streams_is_kept(connect):
    link = connect()
    link.server.update_settings({SettingId.MAX_CONCURRENT_STREAMS: 2})
    link.pump()

    for _ in range(3):
        exchanges: list[Exchange] = []
        while link.client.may_open and len(exchanges) < 5:
            exchanges.append(link.client.request(POST, end=False))
        link.pump()
        open_now = [each for each in link.server.exchanges.values() if not each.complete]
        assert len(open_now) == 2
        for server in open_now:
            link.server.respond(server, OK, end=True)
        for client in exchanges:
            link.client.send(client, b"content", end=True)
        while not all(client.complete for client in exchanges):
            link.pump()
            for server in link.server.exchanges.values():
                if not server.sent.sections:
                    link.server.respond(server, OK, end=True)

    link.assert_agreement()


# -- PING, RST_STREAM, GOAWAY ----------------------------------------------------------------


@conversation()
def test_pings_are_answered_both_ways(connect):
    link = connect()
    link.ours.log.clear()
    link.theirs.log.clear()

    link.ours.ping(b"from us.")
    link.theirs.ping(b"from h2.")
    link.theirs.ping(b"again...")
    link.pump()

    assert link.ours.log == [
        Seen("ping", 0, b"from h2."),
        Seen("ping", 0, b"again..."),
        Seen("ping ack", 0, b"from us."),
    ]
    assert link.theirs.log == [
        Seen("ping", 0, b"from us."),
        Seen("ping ack", 0, b"from h2."),
        Seen("ping ack", 0, b"again..."),
    ]


@conversation()
@pytest.mark.parametrize("who", ["client", "server"])
@pytest.mark.parametrize(
    "when",
    ["before the response", "in mid-body", "after the request's end", "after the response's end"],
)
def test_a_reset_ends_the_stream_at_both_ends_and_nothing_else(connect, who, when):
    link = connect()
    bystander, bystander_at_server = asked(link, POST, end=False)
    client, server = asked(link, POST, end=False)
    link.client.send(client, some_octets(100), end=when == "after the request's end")
    if when != "before the response":
        link.server.respond(server, OK)
        link.server.send(server, some_octets(200), end=when == "after the response's end")
    link.pump()

    end, other = (client, server) if who == "client" else (server, client)
    getattr(link, who).reset_stream(end, ErrorCode.INTERNAL_ERROR)
    link.pump()

    assert (end.reset, other.was_reset) == (ErrorCode.INTERNAL_ERROR, ErrorCode.INTERNAL_ERROR)
    link.client.send(bystander, b"goes on", end=True)
    link.server.respond(bystander_at_server, OK, end=True)
    link.pump()
    assert bystander.complete
    assert bystander_at_server.received.content == b"goes on"
    link.assert_agreement()


@conversation()
@pytest.mark.parametrize("who", ["client", "server"])
def test_what_crosses_a_reset_is_discarded_and_its_window_given_back(connect, who):
    link = connect()
    content = some_octets(50_000)

    for _ in range(8):
        client, server = asked(link, POST, end=False)
        link.server.respond(server, OK)
        link.pump()
        # Both send before either has read: the octets of one cross the other's reset.
        link.client.send(client, content)
        link.client.send_trailers(client, TRAILERS)
        link.server.send(server, content)
        link.server.send_trailers(server, TRAILERS)
        crossing = {"client": link.server, "server": link.client}[who].give()
        getattr(link, who).reset_stream(client if who == "client" else server)
        for piece in link.cut(crossing):
            getattr(link, who).take(piece)
        link.pump()

    link.assert_agreement()


@conversation()
def test_resets_that_cross_each_other_are_both_final(connect):
    link = connect()

    client, server = asked(link, POST, end=False)
    link.client.reset_stream(client, ErrorCode.CANCEL)
    link.server.reset_stream(server, ErrorCode.REFUSED_STREAM)
    link.pump()

    link.assert_agreement()
    client, server = asked(link)
    link.server.respond(server, OK, end=True)
    link.pump()
    assert client.complete


@conversation(roles=(CLIENT,))
def test_a_request_withdrawn_before_it_leaves_is_never_seen(connect):
    link = connect()

    exchange = link.client.request(POST, end=False)
    link.client.send(exchange, b"content")
    link.client.reset_stream(exchange)
    client, server = asked(link)
    link.server.respond(server, OK, end=True)
    link.pump()

    assert [*link.server.exchanges] == [1]
    assert client.complete
    link.assert_agreement()


@conversation(roles=(CLIENT,))
def test_streams_under_way_finish_after_h2lites_goaway_as_a_client(connect):
    link = connect()
    client, server = asked(link, POST, end=False)

    link.ours.goaway(ErrorCode.NO_ERROR, b"the end of the day")
    link.pump()
    link.client.send(client, b"question", end=True)
    link.server.respond(server, OK)
    link.server.send(server, b"answer", end=True)
    link.pump()

    assert client.received == Message(("response", OK), content=b"answer", ended=True)
    assert server.received == Message(("request", POST), content=b"question", ended=True)
    link.assert_agreement()
    link.theirs.release_goaway()
    goaway = 0, ErrorCode.NO_ERROR, b"the end of the day"
    assert link.theirs.log[-1] == Seen("goaway", 0, goaway)


@conversation(roles=(SERVER,))
def test_streams_under_way_finish_after_h2lites_goaway_as_a_server_and_later_ones_do_not(connect):
    link = connect()
    client, server = asked(link, POST, end=False)

    link.ours.goaway(ErrorCode.NO_ERROR, b"the end of the day")
    link.pump()
    # RFC 9113 §6.8: opened before the GOAWAY was read, and not looked at.
    late = link.client.request(POST, end=False)
    link.client.send(late, b"too late", end=True)
    link.client.send(client, b"question", end=True)
    link.server.respond(server, OK)
    link.server.send(server, b"answer", end=True)
    link.pump()

    assert client.received == Message(("response", OK), content=b"answer", ended=True)
    assert server.received == Message(("request", POST), content=b"question", ended=True)
    assert [*link.ours.exchanges] == [1]
    link.assert_same_windows()
    link.theirs.release_goaway()
    goaway = 1, ErrorCode.NO_ERROR, b"the end of the day"
    assert link.theirs.log[-1] == Seen("goaway", 0, goaway)


@conversation(roles=(CLIENT,))
def test_streams_under_way_finish_after_a_servers_goaway_and_the_others_may_be_retried(connect):
    link = connect()
    first, first_at_server = asked(link, POST, end=False)
    second, _ = asked(link, POST, end=False)

    link.ours.take(link.theirs.goaway_and_go_on(last_stream_id=1))
    assert not link.ours.may_open
    link.client.send(first, b"question", end=True)
    link.server.respond(first_at_server, OK)
    link.server.send(first_at_server, b"answer", end=True)
    link.pump()

    assert first.received == Message(("response", OK), content=b"answer", ended=True)
    assert first_at_server.received.content == b"question"
    assert second.was_reset == ErrorCode.REFUSED_STREAM
    assert second.received == Message()
    link.assert_same_windows()


@conversation(roles=(SERVER,))
def test_streams_under_way_finish_after_a_clients_goaway(connect):
    link = connect()
    client, server = asked(link, POST, end=False)

    link.ours.take(link.theirs.goaway_and_go_on(last_stream_id=0))
    link.client.send(client, b"question", end=True)
    link.server.respond(server, OK)
    link.server.send(server, b"answer", end=True)
    link.pump()

    assert client.received == Message(("response", OK), content=b"answer", ended=True)
    link.assert_agreement()


@conversation()
@pytest.mark.parametrize("error_code", [ErrorCode.NO_ERROR, ErrorCode.ENHANCE_YOUR_CALM])
def test_h2s_own_goaway_is_reported_as_it_was_sent(connect, error_code):
    link = connect()
    asked(link)

    link.theirs.goaway(error_code, b"why")
    link.pump()

    last = 1 if link.server is link.theirs else 0
    seen = [seen for seen in link.ours.log if seen.kind == "goaway"]
    assert seen == [Seen("goaway", 0, (last, error_code, b"why"))]


# -- random conversations --------------------------------------------------------------------

NAMES = [*(b"x-%d" % number for number in range(30)), b"accept", b"cookie", b"authorization"]
BODY_OCTETS = (0, 1, 10, 500, 5000, 20_000, 100_000)
STREAMS_MAX = 30  # with something still to be sent


class Conversation:
    """Random lawful actions of both ends, drawn from one seed.

    sending   what is left to send, message by message, one step at a time
    """

    def __init__(self, seed: int, ours_is_client: bool) -> None:
        self.rng = random.Random(seed)
        theirs = Theirs(not ours_is_client, credit_by_hand=self.rng.random() < 0.5)
        self.link = Link(Ours(ours_is_client), theirs, at_random(seed))
        self.ends: tuple[End, End] = (self.link.ours, theirs)
        self.sending: list[tuple[Exchange, Iterator[None]]] = []
        self.answered = 0  # requests for which an answer was begun
        self.interims = self.rng.random() < 0.5
        self.table_sizes = iter(sorted(self.rng.sample(range(0, 20_000, 100), 5)))
        for end in self.ends:
            end.read_at_once = False

    def run(self) -> None:
        actions = [
            *[self.open] * 3,
            *[self.go_on] * 12,
            *[self.read] * 4,
            *[self.move] * 8,
            self.reset,
            self.ping,
            self.change_settings,
            self.prioritize,
        ]
        for _ in range(self.rng.randrange(30, 200)):
            self.rng.choice(actions)()
        self.finish()

        self.link.assert_agreement()
        assert not self.link.ours.waiting
        for end in self.ends:
            assert all(each.complete or each.broken for each in end.exchanges.values())
            assert not end.settings_under_way

    def finish(self) -> None:
        """Let everything that was begun come to its end."""
        for end in self.ends:
            end.read_at_once = True
            end.consume_all()
        self.link.pump()
        # A window of 0 opens for no WINDOW_UPDATE, since there is nothing to consume.
        for end in self.ends:
            end.update_settings({SettingId.INITIAL_WINDOW_SIZE: 65535})
        self.link.pump()
        self.begin_answers()
        while self.sending:
            self.go_on()
            self.link.pump()
            self.begin_answers()

    # What may happen.

    def open(self) -> None:
        client = self.link.client
        if not client.may_open or len(self.sending) >= STREAMS_MAX:
            return
        method = self.rng.choice((b"GET", b"HEAD", b"POST", b"PUT"))
        body = self.some_body() if method in (b"POST", b"PUT") else None
        fields = [(b":method", method), *GET[1:], *self.some_fields(body)]
        exchange = client.request(fields, end=body is None)
        exchange.pad = self.some_pad()
        if body is not None:
            self.sending.append((exchange, self.content(client, exchange, body)))

    def go_on(self) -> None:
        """One step of one message that is being sent."""
        self.begin_answers()
        self.sending = [message for message in self.sending if not message[0].broken]
        if self.sending:
            exchange, steps = message = self.rng.choice(self.sending)
            if next(steps, exchange) is exchange:
                self.sending.remove(message)

    def begin_answers(self) -> None:
        for exchange in [*self.link.server.exchanges.values()][self.answered :]:
            self.answered += 1
            exchange.pad = self.some_pad()
            self.sending.append((exchange, self.answer(exchange)))

    def answer(self, exchange: Exchange) -> Iterator[None]:
        server, rng = self.link.server, self.rng
        for _ in range(rng.choice((0, 1, 2)) if self.interims else 0):
            server.respond(exchange, [(b":status", b"103"), *self.some_fields(None)])
            yield
        status = rng.choice((b"200", b"200", b"200", b"204", b"304", b"404", b"500"))
        method = exchange.received.sections[0][1][0][1]
        body = None if status in (b"204", b"304") or method == b"HEAD" else self.some_body()
        end = not body and rng.random() < 0.5
        server.respond(exchange, [(b":status", status), *self.some_fields(body)], end)
        yield
        if not end:
            yield from self.content(server, exchange, body or b"")

    def content(self, end: End, exchange: Exchange, body: bytes) -> Iterator[None]:
        """Content in portions; END_STREAM comes with the last one, alone, or with trailers."""
        ending = self.rng.choice(("with the last", "alone", "with trailers"))
        if ending == "alone" and body and end is self.link.ours:
            # RFC 9113 §6.9.1: an empty DATA frame with END_STREAM needs no window; h2 refuses it
            # while a lowered window is below zero.
            ending = "with the last" if self.link.theirs.credit_by_hand else ending
        at = 0
        while at < len(body):
            portion = body[at : at + self.rng.choice((1, 100, 5000, 40_000))]
            at += len(portion)
            end.send(exchange, portion, at == len(body) and ending == "with the last")
            yield
        if ending == "with trailers":
            # RFC 9113 §4.3: zero or more field lines; h2 cannot send a section of none.
            fields = self.some_fields(None)
            end.send_trailers(exchange, fields if end is self.link.ours else fields or TRAILERS)
        elif not exchange.sent.ended:
            end.send(exchange, b"", True)

    def reset(self) -> None:
        end = self.rng.choice(self.ends)
        exchanges = end.exchanges.values()
        alive = [each for each in exchanges if not (each.broken or each.complete)]
        if self.interims and end is self.link.theirs:
            # RFC 9113 §5.1: what crosses a reset is ignored; for h2 an interim response that
            # does is a connection error.
            alive = [each for each in alive if "response" in dict(each.received.sections)]
        if alive:
            codes = (ErrorCode.NO_ERROR, ErrorCode.CANCEL, ErrorCode.INTERNAL_ERROR)
            end.reset_stream(self.rng.choice(alive), self.rng.choice(codes))

    def ping(self) -> None:
        end = self.rng.choice(self.ends)
        if len(end.pings) - len(end.seen("ping ack")) < PINGS_IN_FLIGHT_MAX:
            end.ping(self.rng.randbytes(8))

    def change_settings(self) -> None:
        end = self.rng.choice(self.ends)
        if end.settings_under_way < (5 if end is self.link.ours else 1):
            end.update_settings(self.some_settings(end))

    def read(self) -> None:
        end = self.rng.choice(self.ends)
        unread = [stream_id for stream_id, each in end.exchanges.items() if each.unread]
        if unread:
            stream_id = self.rng.choice(unread)
            octets = end.exchanges[stream_id].unread
            end.consume(stream_id, self.rng.choice((octets, self.rng.randint(1, octets))))

    def move(self) -> None:
        self.link.move_some(self.rng)

    def prioritize(self) -> None:
        if self.link.client is self.link.theirs:
            stream_id, weight = self.rng.randrange(1, 99, 2), self.rng.randint(1, 256)
            self.link.theirs.conn.prioritize(stream_id, weight, depends_on=0)

    # With what.

    def some_body(self) -> bytes:
        return self.rng.randbytes(self.rng.choice(BODY_OCTETS))

    def some_pad(self) -> int | None:
        return self.rng.choice((None, None, 0, 1, 200))

    def some_fields(self, body: bytes | None) -> Fields:
        """Names and values that come again, new ones, now and then a big one."""
        rng = self.rng
        fields = [
            (rng.choice(NAMES), rng.choice((b"", b"1", b"again", some_letters(rng.randrange(200)))))
            for _ in range(rng.randrange(6))
        ]
        if rng.random() < 0.02:
            fields += some_lines(rng.randrange(15, 45))
        if body is not None and rng.random() < 0.5:
            fields.append((b"content-length", b"%d" % len(body)))
        return fields

    def some_settings(self, end: End) -> dict[int, int]:
        rng = self.rng
        settings = {}
        if end is self.link.theirs:
            table_size: int | None = rng.choice((0, 100, 4096, 10_000))
        else:
            # RFC 7541 §4.2, §6.3: of several sizes between two blocks the smallest and the last
            # are told, none over the limit in force.  h2 tells all, so that one which is lowered
            # again after a raise exceeds the limit; and none when the last came twice.
            table_size = next(self.table_sizes, None)
        if table_size is not None and rng.random() < 0.5:
            settings[SettingId.HEADER_TABLE_SIZE] = table_size
        if rng.random() < 0.5:
            settings[SettingId.MAX_FRAME_SIZE] = rng.choice((16384, 20_000, 100_000))
        # h2's own judgement of credit does not follow a lowered window (see above).
        if rng.random() < 0.5 and (end is self.link.ours or self.link.theirs.credit_by_hand):
            settings[SettingId.INITIAL_WINDOW_SIZE] = rng.choice((0, 3000, 65535, MIB))
        if rng.random() < 0.3 and end is self.link.server:
            settings[SettingId.MAX_CONCURRENT_STREAMS] = rng.choice((1, 3, 100))
        return settings


@pytest.mark.parametrize("role", [CLIENT, SERVER])
@pytest.mark.parametrize("seed", range(CONVERSATIONS))
def test_a_random_conversation_ends_in_agreement(role, seed):
    Conversation(seed, role == CLIENT).run()
