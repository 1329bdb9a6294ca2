"""Field sections: HPACK around the hpack package, and which messages are malformed."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hpack import Decoder, Encoder, HPACKError
from hypothesis import given
from hypothesis import strategies as st

from h2lite import memo
from h2lite.errors import ErrorCode, PeerError
from h2lite.fields import (
    MISSES_MAX,
    NAMES_MAX,
    FieldDecoder,
    FieldEncoder,
    Section,
    request_fault,
    response_fault,
    trailers_fault,
)
from h2lite.limits import DEFAULT_LIMITS
from tests.pair import GET, OK, TRAILERS

# Field lines h2lite may not be given by a peer, each with what the refusal says.
BAD_NAMES = [b"", b"a b", b"a\0", b"a\x7f", b"a\x80", b"a\xff", b"a:b", b"a\n", b" a", b"(a)"]
GOOD_NAMES = [b"a", b"x-1", b"!#$%&'*+-.^_`|~", b"0"]
BAD_VALUES = [b"\0", b"a\rb", b"a\nb", b"a\x1fb", b"\x7f", b" a", b"a ", b"\ta", b"a\t", b" "]
GOOD_VALUES = [b"", b"a", b"a b", b"a\tb", b"\x80\xff", b'"~!']


def in_each_section(field: tuple[bytes, bytes]) -> list[str | None]:
    """What each kind of section says to one more field line."""
    return [
        request_fault([*GET, field]),
        response_fault([*OK, field]),
        trailers_fault([*TRAILERS, field]),
    ]


def without(name: bytes) -> list[tuple[bytes, bytes]]:
    return [field for field in GET if field[0] != name]


# -- what every section may hold -----------------------------------------------------------


@pytest.mark.rfc("field-name")
@pytest.mark.parametrize("name", GOOD_NAMES)
def test_a_token_is_a_field_name(name):
    assert in_each_section((name, b"v")) == [None, None, None]


@pytest.mark.rfc("field-name")
@pytest.mark.parametrize("name", BAD_NAMES)
def test_what_is_no_token_is_no_field_name(name):
    fault = f"field name {name!r} holds a forbidden octet"

    assert in_each_section((name, b"v")) == [fault] * 3


@pytest.mark.rfc("field-name-lowercase")
@pytest.mark.parametrize("name", [b"A", b"aZ", b"Content-Type"])
def test_a_field_name_with_an_upper_case_letter_is_malformed(name):
    fault = f"field name {name!r} holds a forbidden octet"

    assert in_each_section((name, b"v")) == [fault] * 3


@pytest.mark.rfc("field-value")
@pytest.mark.parametrize("value", GOOD_VALUES)
def test_a_field_value_may_hold_what_is_printable_and_what_is_not_ascii(value):
    assert in_each_section((b"a", value)) == [None, None, None]


@pytest.mark.rfc("field-value")
@pytest.mark.parametrize("value", BAD_VALUES)
def test_controls_and_outer_blanks_in_a_field_value_are_malformed(value):
    assert None not in in_each_section((b"a", value))


@pytest.mark.rfc("field-value")
@pytest.mark.parametrize("value", BAD_VALUES)
def test_pseudo_header_fields_have_values_of_the_same_kind(value):
    assert request_fault([*without(b":path"), (b":path", value)]) is not None


@pytest.mark.rfc("connection-specific")
@pytest.mark.parametrize(
    "name",
    [b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"],
)
def test_fields_of_an_http_1_connection_are_malformed(name):
    fault = f"field {name!r} belongs to HTTP/1.1"

    assert in_each_section((name, b"close")) == [fault] * 3


@pytest.mark.rfc("te-trailers")
def test_te_may_say_trailers():
    assert in_each_section((b"te", b"trailers")) == [None, None, None]


@pytest.mark.rfc("te-trailers")
@pytest.mark.parametrize("value", [b"", b"gzip", b"trailers, gzip", b"trailers;q=1"])
def test_te_may_say_nothing_else(value):
    fault = f"te of {value!r}, only 'trailers' may be sent"

    assert in_each_section((b"te", value)) == [fault] * 3


# -- pseudo-header fields ------------------------------------------------------------------


@pytest.mark.rfc("pseudo-unknown")
@pytest.mark.parametrize("name", [b":", b":protocol", b":Path", b":status"])
def test_an_unknown_pseudo_header_field_makes_a_request_malformed(name):
    fault = f"pseudo-header field {name!r} does not belong here"

    assert request_fault([*GET, (name, b"200")]) == fault


@pytest.mark.rfc("pseudo-unknown")
@pytest.mark.parametrize("name", [b":", b":method", b":path", b":reason"])
def test_an_unknown_pseudo_header_field_makes_a_response_malformed(name):
    fault = f"pseudo-header field {name!r} does not belong here"

    assert response_fault([OK[0], (name, b"GET")]) == fault


@pytest.mark.rfc("pseudo-repeated")
@pytest.mark.parametrize("field", GET)
def test_a_request_has_each_pseudo_header_field_once(field):
    assert request_fault([*GET, field]) == f"pseudo-header field {field[0]!r} comes twice"


@pytest.mark.rfc("pseudo-repeated")
def test_a_response_has_its_status_once():
    assert response_fault([OK[0], OK[0]]) == "pseudo-header field b':status' comes twice"


@pytest.mark.rfc("pseudo-late")
def test_pseudo_header_fields_come_before_the_others():
    late = "pseudo-header field {!r} comes after a regular one"

    assert request_fault([*GET[:3], (b"a", b""), GET[3]]) == late.format(b":path")
    assert response_fault([(b"a", b""), OK[0]]) == late.format(b":status")


@pytest.mark.rfc("trailers-no-pseudo")
@pytest.mark.parametrize("field", [*GET, OK[0]])
def test_trailers_have_no_pseudo_header_fields(field):
    fault = f"pseudo-header field {field[0]!r} does not belong here"

    assert trailers_fault([field]) == fault


def test_trailers_may_hold_any_number_of_fields():
    assert trailers_fault([]) is None
    assert trailers_fault([*TRAILERS, *TRAILERS]) is None


@pytest.mark.rfc("request-pseudo")
@pytest.mark.parametrize("name", [b":method", b":scheme", b":path"])
def test_a_request_without_method_scheme_or_path_is_malformed(name):
    fault = f"{name.decode()} is missing or empty"

    assert request_fault(GET) is None
    assert request_fault(without(name)) == fault
    assert request_fault([*without(name), (name, b"")]) == fault


@pytest.mark.rfc("request-pseudo")
def test_a_request_needs_no_authority_and_may_have_any_scheme_and_path():
    assert request_fault(without(b":authority")) is None
    fields = [(b":method", b"OPTIONS"), (b":scheme", b"coap"), (b":path", b"*")]
    assert request_fault(fields) is None


@pytest.mark.rfc("connect-pseudo")
def test_connect_has_a_method_and_an_authority():
    assert request_fault([(b":method", b"CONNECT"), (b":authority", b"a:443")]) is None


@pytest.mark.rfc("connect-pseudo")
@pytest.mark.parametrize(
    "fields",
    [[], [(b":scheme", b"https"), GET[2]], [GET[2], (b":path", b"/")], GET[1:]],
)
def test_connect_without_an_authority_or_with_more_is_malformed(fields):
    fault = "CONNECT takes :method and :authority alone"

    assert request_fault([(b":method", b"CONNECT"), *fields]) == fault


@pytest.mark.rfc("connect-pseudo")
@pytest.mark.parametrize("authority", [b"a", b"80", b":80", b"a:", b"a:b", b"[::1]"])
def test_connect_says_the_port_too(authority):
    fault = f":authority of {authority!r} for CONNECT, want host:port"

    assert request_fault([(b":method", b"CONNECT"), (b":authority", authority)]) == fault


@pytest.mark.rfc("response-status")
@pytest.mark.parametrize("status", [b"100", b"103", b"200", b"404", b"599", b"600", b"999"])
def test_a_status_has_three_digits(status):
    assert response_fault([(b":status", status)]) is None


@pytest.mark.rfc("response-status")
@pytest.mark.parametrize("status", [b"", b"20", b"2000", b"099", b"2e1", b"+20", b"20\xb2"])
def test_a_status_of_another_form_is_malformed(status):
    assert response_fault([(b":status", status)]) == f":status of {status!r}"


@pytest.mark.rfc("response-status")
def test_a_response_without_a_status_is_malformed():
    assert response_fault(OK[1:]) == ":status of b''"


@pytest.mark.rfc("no-101")
def test_the_status_101_is_malformed():
    assert response_fault([(b":status", b"101")]) == ":status 101 does not exist in HTTP/2"


# -- HPACK ---------------------------------------------------------------------------------

NAMES = st.sampled_from([b"a", b"cookie", b"authorization", b":path", b"x" * 40])
FIELDS = st.lists(st.tuples(NAMES, st.binary(max_size=60)), max_size=8)


@given(st.lists(st.one_of(FIELDS, st.integers(0, 10000)), max_size=12))
def test_the_peers_decoder_reads_what_was_encoded_whatever_table_it_allows(steps):
    encoder, decoder = FieldEncoder(), Decoder()
    for step in steps:
        if isinstance(step, int):
            encoder.set_table_size(step)
            decoder.max_allowed_table_size = step
        else:
            assert decoder.decode(encoder.encode(step), raw=True) == step


@given(st.lists(FIELDS, max_size=6))
def test_what_the_peers_encoder_wrote_is_decoded(sections):
    encoder, decoder = Encoder(), FieldDecoder()

    for fields in sections:
        assert [*decoder.decode(encoder.encode(fields)).fields] == fields


# What is coded once and said again.  Few names and values, so that most lines come again; some
# larger than a small table, which empties it; and a literal that leaves the table alone.
LINES = st.tuples(
    st.sampled_from([b"a", b"cookie", b"authorization", b":path", b":method"]),
    st.sampled_from([b"GET", b"/", b"/1", b"/2", b"/3", b"v" * 40, b"v" * 300]),
)
SECTIONS = st.lists(LINES, max_size=6)
TABLE_SIZES = st.sampled_from([0, 40, 80, 200, 4096])


@given(st.lists(st.one_of(SECTIONS, SECTIONS, TABLE_SIZES), max_size=40))
def test_sections_sent_again_are_decoded_by_a_decoder_that_remembers_nothing(steps):
    encoder, decoder = FieldEncoder(), Decoder()
    kept: dict[tuple[Any, ...], Section] = {}
    for step in steps:
        if isinstance(step, int):
            encoder.set_table_size(step)
            decoder.max_allowed_table_size = step
            continue
        section = kept.setdefault(tuple(step), Section(step))
        for sent in (step, section):
            assert decoder.decode(encoder.encode(sent), raw=True) == step


# Representations (RFC 7541 §6) of lines in the static table, in the dynamic one where there is
# one, of literals that go into it and of those that do not; size updates of 0, 30 and 80 octets.
REPRESENTATIONS = st.one_of(
    st.sampled_from([0x82, 0x84, 0xBE, 0xBF, 0xC0]).map(lambda octet: bytes((octet,))),
    st.builds(
        lambda first, name, octets: bytes((first, 1, name, octets)) + b"v" * octets,
        st.sampled_from([0x40, 0x40, 0x00, 0x10]),
        st.sampled_from(b"ab"),
        st.sampled_from([0, 1, 50]),
    ),
)
UPDATES = st.lists(st.sampled_from([b"\x20", b"\x3e", b"\x3f\x31"]), max_size=2)
BLOCKS = st.builds(
    lambda updates, lines: b"".join(updates + lines),
    st.one_of(st.just([]), st.just([]), UPDATES),
    st.lists(REPRESENTATIONS, max_size=4),
)
A_FEW_AGAIN_AND_AGAIN = st.lists(BLOCKS, min_size=1, max_size=5).flatmap(
    lambda blocks: st.lists(st.sampled_from(blocks), max_size=30)
)


@given(A_FEW_AGAIN_AND_AGAIN)
def test_blocks_that_come_again_mean_what_they_mean_without_a_memory(blocks):
    plain, decoder = Decoder(), FieldDecoder()
    for block in blocks:
        try:
            meant = [tuple(field) for field in plain.decode(block, raw=True)]
        except HPACKError:
            with pytest.raises(PeerError):
                decoder.decode(block)
            return
        assert [*decoder.decode(block).fields] == meant
        ours: Any = decoder._decoder
        assert ours.header_table.dynamic_entries == plain.header_table.dynamic_entries
        assert ours.header_table_size == plain.header_table_size


def test_a_block_that_comes_again_is_not_decoded_again():
    decoder = FieldDecoder()
    decoder.decode(b"\x40\x01x\x01y")

    assert decoder.decode(b"\x82\xbe") is decoder.decode(b"\x82\xbe")


@pytest.mark.parametrize("change", [b"\x40\x01a\x01b", b"\x20", b"\x3f\xe1\x1f"])
def test_a_change_of_the_table_or_of_its_size_empties_the_memory(change):
    """The last one sets the size that it has."""
    decoder = FieldDecoder()
    before = decoder.decode(b"\x82")

    decoder.decode(change)

    assert not decoder._sections
    assert decoder.decode(b"\x82") is not before


@pytest.mark.rfc("table-size-reduced")
def test_a_block_that_comes_again_does_not_come_without_the_size_update_that_is_due():
    decoder = FieldDecoder()
    decoder.decode(b"\x82")
    decoder.set_table_size(30)

    with pytest.raises(PeerError) as caught:
        decoder.decode(b"\x82")

    assert caught.value.error_code == ErrorCode.COMPRESSION_ERROR


def test_a_token_is_coded_once_though_the_path_differs_each_time():
    encoder, decoder = FieldEncoder(), Decoder()
    token = (b"authorization", b"Bearer " + b"t" * 900)
    sections = [[(b":path", b"/%d" % number), token] for number in range(20)]
    blocks = [encoder.encode(section) for section in sections]

    assert [decoder.decode(block, raw=True) for block in blocks] == sections
    assert token in encoder._lines
    # The first paths went into the table, then nothing more did.
    ours: Any = encoder._encoder
    assert len(ours.header_table.dynamic_entries) == MISSES_MAX


def test_a_value_that_stays_after_all_goes_into_the_table():
    encoder, decoder = FieldEncoder(), Decoder()
    paths = [*(b"/%d" % number for number in range(10)), b"/a", b"/a", b"/a"]
    blocks = [encoder.encode([(b":path", path)]) for path in paths]

    assert [decoder.decode(block, raw=True) for block in blocks] == [
        [(b":path", path)] for path in paths
    ]
    assert [len(block) for block in blocks[-3:]] == [4, 4, 1]
    assert [block[0] & 0xF0 for block in blocks[-3:]] == [0x10, 0x40, 0xB0]


@pytest.mark.parametrize("lines", [1, 100])
def test_what_is_remembered_is_bounded(lines):
    encoder, decoder = FieldEncoder(), FieldDecoder()
    for number in range(2000):
        fields = [(b"x%d" % (number % 300), b"%d" % number)] * lines
        decoder.decode(encoder.encode(fields))
        decoder.decode(b"\x00\x01x\x04%04d" % number)
        for memory in (encoder._sections, encoder._lines, decoder._sections):
            assert len(memory) <= memo.ENTRIES_MAX
            assert memory._octets <= memo.OCTETS_MAX
    assert len(encoder._misses) <= NAMES_MAX + 1


def test_a_section_is_judged_by_the_rules_it_is_asked_of():
    section = Section([(b":status", b"204"), (b"content-length", b"7")])

    assert section.response_fault() is None
    assert (section.status, section.declared, section.method) == (204, 7, b"")
    assert section.request_fault() == "pseudo-header field b':status' does not belong here"
    assert section.trailers_fault() == "pseudo-header field b':status' does not belong here"
    assert section.response_fault() is None


def test_no_value_is_shown_by_a_section():
    assert "secret" not in repr(Section([(b"authorization", b"secret")]))


def test_a_field_sent_again_is_a_reference():
    encoder = FieldEncoder()

    # RFC 7541 §6.2.1: a new name, indexed; then §6.1: entry 62, the newest.
    assert encoder.encode([(b"x", b"yyyyy")]).hex() == "4081f385f5ebd7af5f"
    assert encoder.encode([(b"x", b"yyyyy")]).hex() == "be"


@pytest.mark.parametrize(
    ("name", "first_octets"), [(b"authorization", "1f08"), (b"proxy-authorization", "1f22")]
)
def test_credentials_are_never_indexed(name, first_octets):
    encoder = FieldEncoder()
    section = [(name, b"secret")]

    first, again = encoder.encode(section), encoder.encode(section)

    # RFC 7541 §6.2.3: 0001, then the name's place in the static table, 23 and 49.
    assert first.hex().startswith(first_octets)
    assert again == first


@pytest.mark.rfc("table-size-update")
def test_a_smaller_table_is_announced_by_the_next_block():
    encoder = FieldEncoder()
    encoder.encode([(b"x", b"y")])

    encoder.set_table_size(0)

    # RFC 7541 §6.3: 001, then the size.
    assert encoder.encode([(b":method", b"GET")]).hex() == "2082"
    assert encoder.encode([(b":method", b"GET")]).hex() == "82"


@pytest.mark.rfc("table-size-update")
def test_a_smaller_table_is_announced_by_the_very_first_block():
    encoder = FieldEncoder()

    encoder.set_table_size(30)

    assert encoder.encode([(b":method", b"GET")]).hex() == "3e82"


@pytest.mark.rfc("table-size-update")
@pytest.mark.parametrize("used_before", [False, True])
@pytest.mark.parametrize(
    ("sizes", "updates"),
    [
        ([4096], ""),
        ([65536, 4096], ""),
        ([100, 4096], "3f453fe11f"),
        ([100, 65536, 70000], "3f453fe11f"),
        ([100, 0, 30, 20, 30], "203e"),
        ([100, 100], "3f45"),
        ([30, 20], "34"),
    ],
)
def test_of_several_changes_the_smallest_and_the_last_are_announced(used_before, sizes, updates):
    encoder = FieldEncoder()
    if used_before:
        encoder.encode([(b"x", b"y")])

    for size in sizes:
        encoder.set_table_size(size)

    assert encoder.encode([(b":method", b"GET")]).hex() == updates + "82"


def test_a_table_larger_than_the_default_is_not_used():
    encoder = FieldEncoder()

    encoder.set_table_size(2**32 - 1)

    assert encoder.encode([(b":method", b"GET")]).hex() == "82"


@pytest.mark.rfc("decoding-error")
@pytest.mark.parametrize(
    "octets",
    [
        "80",  # index 0
        "be",  # entry 62 of an empty table
        "40",  # a literal without a name
        "0001610561",  # a value shorter than it says
        "3fe21f",  # a table of 4097 octets
        "8220",  # a table size update behind a field
        "7fffffffffffffffffffff7f",  # an integer without an end
        "00016181ff",  # Huffman: the padding is EOS's beginning, but all of an octet
        "000184ffffffff00",  # Huffman: EOS itself
    ],
)
def test_a_block_that_does_not_decode_is_a_compression_error(octets):
    with pytest.raises(PeerError) as caught:
        FieldDecoder().decode(bytes.fromhex(octets))

    assert (caught.value.error_code, caught.value.stream_id) == (ErrorCode.COMPRESSION_ERROR, 0)


@given(st.lists(st.binary(max_size=40)))
def test_any_octets_decode_or_are_a_peers_fault(blocks):
    decoder = FieldDecoder()
    fault = None
    for block in blocks:
        try:
            fields = decoder.decode(block).fields
        except PeerError as error:
            fault = error
            break
        assert all(type(part) is bytes for field in fields for part in field)

    if fault is not None:
        assert (fault.error_code, fault.stream_id) == (ErrorCode.COMPRESSION_ERROR, 0)


@pytest.mark.rfc("field-section-bounded")
def test_a_section_may_be_as_large_as_was_announced_and_no_larger():
    # 32 octets a line, and this line's name.
    largest = bytes(DEFAULT_LIMITS.field_section_octets - 33)
    fits = Encoder().encode([(b"a", largest)], huffman=False)
    over = Encoder().encode([(b"a", largest + b"\0")], huffman=False)

    assert FieldDecoder().decode(fits).fields == ((b"a", largest),)
    with pytest.raises(PeerError) as caught:
        FieldDecoder().decode(over)

    assert (caught.value.error_code, caught.value.stream_id) == (ErrorCode.ENHANCE_YOUR_CALM, 0)


@pytest.mark.rfc("field-section-bounded")
def test_a_small_block_cannot_become_a_large_section():
    # One entry of 4000 octets, and a reference to it in every octet that follows.
    bomb = Encoder().encode([(b"a", b"x" * 4000)], huffman=False) + b"\xbe" * 16000

    with pytest.raises(PeerError) as caught:
        FieldDecoder().decode(bomb)

    assert (caught.value.error_code, caught.value.stream_id) == (ErrorCode.ENHANCE_YOUR_CALM, 0)


def test_hpack_is_not_imported_before_the_first_field_block():
    program = (
        "import sys; from h2lite.connection import Connection\n"
        "core = Connection(); core.ping(b'12345678', 0.0); core.data_to_send(0.0)\n"
        "core.receive_data(bytes.fromhex('000006040000000000000100000000'), 0.0)\n"
        "assert core.settings_received and 'hpack' not in sys.modules"
    )

    subprocess.run([sys.executable, "-c", program], check=True)


def test_what_stands_for_no_memo_keeps_nothing():
    """It is everybody's: a secret that was kept there would outlive its connection."""
    memo.NO_MEMO.keep("key", "secret", 10)
    with pytest.raises(TypeError):
        memo.NO_MEMO["key"] = "secret"

    assert (len(memo.NO_MEMO), memo.NO_MEMO.get("key")) == (0, None)
