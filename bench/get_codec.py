"""A GET without sockets, and what of it are field blocks.

Timed: each of these, of one request and its response.

    request and response   two connections in memory, client and server: the request's fields to
                           octets and back, the response's and 13 octets of content to octets and
                           back, the windows returned.  h2lite on both ends, or h2, or jh2
    fields encode, decode  a request's field section to a block, and back.  The floor is the hpack
                           package with nothing around it, as h2 uses it

    cold        by a new encoder or decoder
    repeated    the same fields again
    differing   :path is another one each time
    token       the same again, among them an authorization field of 900 octets that is never
                indexed; the blocks to decode have it as hpack encodes it, by Huffman's code

Left out: the system.  In `fields decode` also whether the section is a well-formed one; `request
and response` has that.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any, NamedTuple

from hpack import Decoder, Encoder

from h2lite.connection import Connection
from h2lite.events import DataReceived, RequestReceived, ResponseReceived
from h2lite.fields import FieldDecoder, FieldEncoder

from .answering import CONTENT
from .figures import SAME, WARM_UP_CALLS, Measured, Options, compare, cores, on_core
from .gets import TOKEN
from .variant import FLOOR, OURS, Variant

TYPE_CHECKING = False
if TYPE_CHECKING:
    from h2lite.events import Fields

PINNING = SAME
H2, JH2 = "h2", "jh2"
CALLS = 8  # a round
BATCH = 16  # operations a call, so that reading the clock is no part of the result
NOW = 1.0

COLD, REPEATED, DIFFERING, TOKEN_CASE = "cold", "repeated", "differing", "token"
GET_CASES = (REPEATED, DIFFERING, TOKEN_CASE)
FIELDS_CASES = (COLD, REPEATED, DIFFERING, TOKEN_CASE)
ENCODE, DECODE = "encode", "decode"

REQUEST = [
    (b":method", b"GET"),
    (b":scheme", b"http"),
    (b":authority", b"127.0.0.1:8080"),
    (b":path", b"/small"),
    (b"user-agent", b"bench"),
    (b"accept", b"*/*"),
]
RESPONSE = [
    (b":status", b"200"),
    (b"content-type", b"text/plain"),
    (b"cache-control", b"max-age=3600"),
    (b"date", b"Tue, 15 Nov 1994 08:12:31 GMT"),
    (b"content-length", b"13"),
]
SECRET = (b"authorization", TOKEN.encode())


def requests(case: str) -> Iterator[Fields]:
    """Field sections, one after the other."""
    if case == TOKEN_CASE:
        return itertools.repeat([*REQUEST, SECRET])
    if case != DIFFERING:
        return itertools.repeat(REQUEST)
    return (
        [*REQUEST[:3], (b":path", b"/items/%07d" % number), *REQUEST[4:]]
        for number in itertools.count()
    )


# -- request and response ----------------------------------------------------------------------


def our_get(case: str) -> Variant:
    client, server = Connection(client=True), Connection(client=False)
    sections = requests(case)
    # The field that differs is the request's path; x-item has it again in the response.
    differs = case == DIFFERING

    def get() -> tuple[int, bytes]:
        fields = next(sections)
        client.send_request(fields)
        event: Any
        for event in server.receive_data(client.data_to_send(NOW), NOW):
            if type(event) is RequestReceived:
                stream = server.streams[event.stream_id]
                response = [*RESPONSE, (b"x-item", event.fields[3][1])] if differs else RESPONSE
                server.send_response(stream, response)
                server.send_data(stream, CONTENT, True)
        status, content = 0, b""
        for event in client.receive_data(server.data_to_send(NOW), NOW):
            if type(event) is ResponseReceived:
                status = event.status
            elif type(event) is DataReceived:
                content += event.data
                client.data_consumed(event.stream_id, len(event.data))
        return status, content

    return _batch(OURS, get)


def library_get(library: str, case: str) -> Variant:
    """h2 or jh2.  Raises ModuleNotFoundError without it."""
    connection = import_module(f"{library}.connection").H2Connection
    configuration = import_module(f"{library}.config").H2Configuration
    events = import_module(f"{library}.events")
    client, server = (
        connection(configuration(client_side=side, header_encoding=None)) for side in (True, False)
    )
    client.initiate_connection()
    server.initiate_connection()
    sections = requests(case)
    differs = case == DIFFERING

    def get() -> tuple[int, bytes]:
        stream_id = client.get_next_available_stream_id()
        client.send_headers(stream_id, next(sections), end_stream=True)
        for event in server.receive_data(client.data_to_send()):
            if isinstance(event, events.RequestReceived):
                response = [*RESPONSE, (b"x-item", event.headers[3][1])] if differs else RESPONSE
                server.send_headers(event.stream_id, response)
                server.send_data(event.stream_id, CONTENT, end_stream=True)
        status, content = 0, b""
        for event in client.receive_data(server.data_to_send()):
            if isinstance(event, events.ResponseReceived):
                status = int(event.headers[0][1])
            elif isinstance(event, events.DataReceived):
                content += event.data
                client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        return status, content

    return _batch(library, get)


def _batch(name: str, get: Callable[[], tuple[int, bytes]]) -> Variant:
    def run() -> list[tuple[int, bytes]]:
        return [get() for _ in range(BATCH)]

    run()  # SETTINGS cross, and the tables are filled
    expected = [(200, CONTENT)] * BATCH
    return Variant(name, run, lambda answers: answers == expected, BATCH)


def get_variant(name: str, case: str) -> Variant:
    """OURS, H2 or JH2.  Raises ModuleNotFoundError without the library."""
    return our_get(case) if name == OURS else library_get(name, case)


# -- field blocks --------------------------------------------------------------------------------


class Coder(NamedTuple):
    """How one of those compared encodes and decodes: what makes a new one of either."""

    encoder: Callable[[], Callable[[Fields], bytes]]
    decoder: Callable[[], Callable[[bytes], Any]]


def _hpack_encoder() -> Callable[[Fields], bytes]:
    encode = Encoder().encode
    never = {SECRET[0]}
    return lambda fields: encode([(name, value, name in never) for name, value in fields])


def _our_decoder() -> Callable[[bytes], Any]:
    decode = FieldDecoder().decode
    return lambda block: [*decode(block).fields]


def _hpack_decoder() -> Callable[[bytes], Any]:
    decode = Decoder().decode
    return lambda block: decode(block, raw=True)


CODERS = {
    FLOOR: Coder(_hpack_encoder, _hpack_decoder),
    OURS: Coder(lambda: FieldEncoder().encode, _our_decoder),
}


def fields_variant(name: str, direction: str, case: str, calls: int) -> Variant:
    """FLOOR or OURS; calls: how often it will be run about, for what is made beforehand."""
    build = _encoding if direction == ENCODE else _decoding
    return build(name, CODERS[name], case, calls)


def _encoding(name: str, coder: Coder, case: str, calls: int) -> Variant:
    sections = _made(requests(case), case, calls)
    unseen: list[tuple[Fields, bytes]] = []  # hpack has to read every block of an encoder
    encode = coder.encoder()
    decode = _hpack_decoder()
    cold = case == COLD

    def run() -> None:
        for _ in range(BATCH):
            fields = next(sections)
            unseen.append((fields, coder.encoder()(fields) if cold else encode(fields)))

    def holds(_: None) -> bool:
        right = all(
            (_hpack_decoder() if cold else decode)(block) == fields for fields, block in unseen
        )
        unseen.clear()
        return right

    run()
    return Variant(name, run, holds, BATCH)


def _decoding(name: str, coder: Coder, case: str, calls: int) -> Variant:
    sections = requests(case)
    decode = coder.decoder()
    if case == COLD:
        first = _hpack_encoder()(REQUEST)
        pairs: Iterator[tuple[bytes, Fields]] = itertools.repeat((first, REQUEST))
    else:
        encode = _hpack_encoder()
        pairs = ((encode(fields), fields) for fields in sections)
        for block, _ in itertools.islice(pairs, BATCH):
            decode(block)
        pairs = _made(pairs, case, calls)
    cold = case == COLD

    def run() -> list[tuple[Any, Fields]]:
        results = []
        for _ in range(BATCH):
            block, fields = next(pairs)
            results.append((coder.decoder()(block) if cold else decode(block), fields))
        return results

    return Variant(name, run, lambda results: all(got == want for got, want in results), BATCH)


def _made(items: Iterator[Any], case: str, calls: int) -> Iterator[Any]:
    """The same items, made beforehand as far as that is foreseen: making them is not timed."""
    if case != DIFFERING:
        return itertools.repeat(next(items))
    return itertools.chain([*itertools.islice(items, calls * BATCH)], items)


def measure(options: Options) -> list[Measured]:
    """Whole GETs, then field blocks in both directions."""
    results = []
    with on_core(cores(PINNING)[0]):
        for case in GET_CASES:
            variants = [get_variant(OURS, case)]
            for library in (H2, JH2) if options.peers else ():
                try:
                    variants.append(get_variant(library, case))
                except ModuleNotFoundError as error:
                    options.absent.add(f"{library}: {error}")
            what = f"request and response {case}"
            results += compare(what, variants, CALLS, options.rounds, operation="GET", warm_up=1)
        calls = options.rounds * (CALLS + WARM_UP_CALLS)
        for direction in (ENCODE, DECODE):
            for case in FIELDS_CASES:
                variants = [fields_variant(name, direction, case, calls) for name in (FLOOR, OURS)]
                what = f"fields {direction} {case}"
                results += compare(what, variants, CALLS, options.rounds, operation="section")
    return results
