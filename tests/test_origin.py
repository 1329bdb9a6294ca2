"""URLs and origins: which are taken, which refused, and what a request says of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from h2lite.errors import UsageError
from h2lite.fields import request_fault
from h2lite.origin import Origin, _parse, parse_url


@pytest.mark.rfc("path-not-empty")
@pytest.mark.parametrize(
    ("url", "origin", "target"),
    [
        ("http://example.org", Origin("http", "example.org", 80), "/"),
        ("https://example.org", Origin("https", "example.org", 443), "/"),
        ("https://example.org/", Origin("https", "example.org", 443), "/"),
        ("https://example.org?q=1", Origin("https", "example.org", 443), "/?q=1"),
        ("https://example.org/a/b?q=1&r", Origin("https", "example.org", 443), "/a/b?q=1&r"),
        ("https://example.org//a", Origin("https", "example.org", 443), "//a"),
        ("https://example.org/a;p=1", Origin("https", "example.org", 443), "/a;p=1"),
        ("https://example.org/a#part", Origin("https", "example.org", 443), "/a"),
        ("https://example.org#part", Origin("https", "example.org", 443), "/"),
        ("https://example.org/%20%C3%A9", Origin("https", "example.org", 443), "/%20%C3%A9"),
        ("HTTPS://Example.ORG/A", Origin("https", "example.org", 443), "/A"),
        ("http://127.0.0.1:8080/", Origin("http", "127.0.0.1", 8080), "/"),
        ("http://[::1]/", Origin("http", "::1", 80), "/"),
        ("https://[::1]:8443/a", Origin("https", "::1", 8443), "/a"),
        ("http://h:1", Origin("http", "h", 1), "/"),
        ("http://h:65535", Origin("http", "h", 65535), "/"),
        ("http://h:", Origin("http", "h", 80), "/"),
        ("unix:/run/app.sock", Origin("http", "localhost", 80, "/run/app.sock"), "/"),
        ("UNIX:/run/App", Origin("http", "localhost", 80, "/run/App"), "/"),
        ("unix:/a:/", Origin("http", "localhost", 80, "/a"), "/"),
        ("unix:/a:/healthz?q=1:2", Origin("http", "localhost", 80, "/a"), "/healthz?q=1:2"),
        ("unix:/a:/b#part", Origin("http", "localhost", 80, "/a"), "/b"),
        ("unix:/a b/é%20?c#d", Origin("http", "localhost", 80, "/a b/é%20?c#d"), "/"),
        ("unix:/" + "x" * 106, Origin("http", "localhost", 80, "/" + "x" * 106), "/"),
        ("unix:/\udcff" + "x" * 105, Origin("http", "localhost", 80, "/\udcff" + "x" * 105), "/"),
    ],
)
def test_a_url_is_an_origin_and_a_target(url, origin, target):
    assert parse_url(url) == (origin, target)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "/",
        "example.org",
        "example.org:80",
        "//example.org/",
        "ftp://example.org/",
        "ws://example.org/",
        "http:",
        "http:///path",
        "http://:80/",
        "http://h:0/",
        "http://h:65536/",
        "http://h:-1/",
        "http://h:+80/",
        "http://h:8o/",
        "http://[::1/",
        "http://::1]/",
        "http://h/a b",
        "http://h/\t",
        "http://h/a\r\nb",
        "http://h/\0",
        "http://h/\x7f",
        "http://h/é",
        "http://é/",
        "unix:",
        "unix::/healthz",
        "unix:app.sock",
        "unix:./app.sock",
        "unix:/a:",
        "unix:/a:b",
        "unix:/a:?q=1",
        "unix:/a:#part",
        "unix:/a:/b c",
        "unix:/a:/é",
        "unix:/a\0b",
        "unix:/\ud800",
        "unix:/" + "x" * 107,
        "unix:/" + "é" * 54,
        "unix:/\udcff" + "x" * 106,
    ],
)
def test_a_url_that_leads_nowhere_is_the_callers_mistake(url):
    with pytest.raises(UsageError) as caught:
        parse_url(url)

    assert str(caught.value).startswith(f"bad URL {url!r}: ")


@pytest.mark.rfc("authority-no-userinfo")
@pytest.mark.parametrize("url", ["http://user@h/", "http://user:word@h/", "http://@h/"])
def test_a_url_with_a_user_or_password_is_refused(url):
    with pytest.raises(UsageError, match="no user or password"):
        parse_url(url)


@pytest.mark.parametrize(
    ("origin", "authority", "text"),
    [
        (Origin("http", "h", 80), "h", "http://h"),
        (Origin("http", "h", 443), "h:443", "http://h:443"),
        (Origin("https", "h", 443), "h", "https://h"),
        (Origin("https", "h", 80), "h:80", "https://h:80"),
        (Origin("https", "::1", 443), "[::1]", "https://[::1]"),
        (Origin("https", "::1", 8443), "[::1]:8443", "https://[::1]:8443"),
    ],
)
def test_the_authority_leaves_out_the_schemes_own_port(origin, authority, text):
    assert origin.authority == authority
    assert str(origin) == text
    assert parse_url(text) == (origin, "/")


def test_an_origin_behind_a_unix_socket_is_localhost_and_none_of_its_namesakes():
    origin = Origin("http", "localhost", 80, "/run/app.sock")

    assert (origin.scheme, origin.authority) == ("http", "localhost")
    assert str(origin) == "unix:/run/app.sock"
    assert parse_url(str(origin)) == (origin, "/")
    assert origin != Origin("http", "localhost", 80)
    assert origin != Origin("http", "localhost", 80, "/run/other.sock")


@given(
    st.text(max_size=20),
    st.sampled_from(["http://", "https://h", "http://[", "unix:/", "unix:/a:/", ""]),
)
def test_any_text_is_refused_or_makes_a_request_that_is_well_formed(text, start):
    try:
        origin, target = parse_url(start + text)
    except UsageError:
        return
    fields = [
        (b":method", b"GET"),
        (b":scheme", origin.scheme.encode()),
        (b":authority", origin.authority.encode()),
        (b":path", target.encode()),
    ]
    assert request_fault(fields) is None
    assert target.startswith("/")
    assert 0 < origin.port < 65536


URL_PARTS = st.lists(
    st.sampled_from(["http://", "HTTPS://", "h", ":80", "/", "?", "#", "a=b", "@", "[::1]", " "]),
    max_size=8,
)


@given(URL_PARTS.map("".join))
def test_an_origin_that_is_known_changes_nothing_of_what_is_parsed(url):
    def outcome(parse: Callable[[str], object]) -> object:
        try:
            return parse(url)
        except UsageError as error:
            return str(error)

    assert outcome(parse_url) == outcome(parse_url) == outcome(_parse)
