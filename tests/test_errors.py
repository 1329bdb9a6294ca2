"""Error codes and the tree of exceptions."""

from __future__ import annotations

import pytest

from h2lite import errors
from h2lite.errors import ErrorCode, H2liteError, PeerError, error_name


def test_the_codes_are_those_of_rfc_9113_section_7():
    codes = {name: code for name, code in vars(ErrorCode).items() if name.isupper()}

    assert codes == {
        "NO_ERROR": 0x00,
        "PROTOCOL_ERROR": 0x01,
        "INTERNAL_ERROR": 0x02,
        "FLOW_CONTROL_ERROR": 0x03,
        "SETTINGS_TIMEOUT": 0x04,
        "STREAM_CLOSED": 0x05,
        "FRAME_SIZE_ERROR": 0x06,
        "REFUSED_STREAM": 0x07,
        "CANCEL": 0x08,
        "COMPRESSION_ERROR": 0x09,
        "CONNECT_ERROR": 0x0A,
        "ENHANCE_YOUR_CALM": 0x0B,
        "INADEQUATE_SECURITY": 0x0C,
        "HTTP_1_1_REQUIRED": 0x0D,
    }


@pytest.mark.parametrize(
    ("code", "name"), [(0x0, "NO_ERROR"), (0x1, "PROTOCOL_ERROR"), (0xD, "HTTP_1_1_REQUIRED")]
)
def test_a_known_code_is_shown_by_its_name(code, name):
    assert error_name(code) == name


@pytest.mark.rfc("unknown-error-code")
@pytest.mark.parametrize(
    ("code", "text"), [(0xE, "0xe"), (0xFF, "0xff"), (2**32 - 1, "0xffffffff")]
)
def test_an_unknown_code_is_shown_as_a_number(code, text):
    assert error_name(code) == text


def test_every_exception_is_an_h2lite_error():
    exceptions = [
        each
        for each in vars(errors).values()
        if isinstance(each, type) and issubclass(each, Exception)
    ]

    assert len(exceptions) > 10
    assert [each for each in exceptions if not issubclass(each, H2liteError)] == []


@pytest.mark.parametrize(
    ("raised", "caught_as"),
    [
        (errors.UsageError, ValueError),
        (errors.LocalProtocolError, errors.UsageError),
        (errors.TLSError, errors.ConnectError),
        (errors.ConnectTimeout, errors.ConnectError),
        (errors.ConnectTimeout, TimeoutError),
        (errors.ReadTimeout, TimeoutError),
        (errors.PingTimeout, TimeoutError),
        (errors.ConnectionLost, ConnectionError),
    ],
)
def test_an_exception_is_also_what_users_already_catch(raised, caught_as):
    assert issubclass(raised, caught_as)


def test_a_fault_of_the_peer_is_the_connections_unless_a_stream_is_named():
    of_connection = PeerError(ErrorCode.PROTOCOL_ERROR, "PING on stream 3")
    of_stream = PeerError(ErrorCode.FRAME_SIZE_ERROR, "PRIORITY of 4 octets", 5)

    assert (of_connection.error_code, of_connection.stream_id) == (0x1, 0)
    assert (of_stream.error_code, of_stream.stream_id) == (0x6, 5)
    assert of_stream.message == str(of_stream) == "PRIORITY of 4 octets"


def test_what_ended_a_call_says_its_error_code():
    assert errors.ConnectionLost("eof").error_code is None
    assert errors.ConnectionLost("GOAWAY", 0xB).error_code == 0xB
    assert errors.RemoteProtocolError("PING on stream 3", 0x1).error_code == 0x1
    assert errors.StreamReset("refused", 0x7).error_code == 0x7


@pytest.mark.parametrize(
    "error",
    [
        errors.ConnectionLost("lost", 7, "eof"),
        errors.RemoteProtocolError("broken", 1),
        errors.StreamReset("reset", 8),
        errors.ConnectTimeout("late"),
        errors.PoolTimeout("full"),
        errors.PeerError(1, "bad", 3),
    ],
)
def test_an_error_told_again_says_the_same_and_is_another(error):
    error.maybe_processed = True
    error.__cause__ = OSError("why")

    again = error.again()

    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))
    assert again is not error
    assert again.__cause__ is error.__cause__
    assert again.__traceback__ is None
