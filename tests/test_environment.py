"""The environment: which variables count, what is a number, and when a proxy is meant."""

from __future__ import annotations

from typing import Any

import pytest

from h2lite.environment import Environment, check_proxy, proxy_for, read_environment
from h2lite.errors import UsageError
from h2lite.health import HealthPolicy
from h2lite.origin import Origin

H2LITE = ("H2LITE_PING_AFTER_IDLE", "H2LITE_PING_TIMEOUT")
KUBERNETES = ("HTTP2_READ_IDLE_TIMEOUT_SECONDS", "HTTP2_PING_TIMEOUT_SECONDS")


def policy(environment: Environment) -> HealthPolicy:
    """What a client makes of it when no argument says otherwise."""
    asked: dict[str, Any] = {
        "ping_after_idle": environment.ping_after_idle,
        "ping_timeout": environment.ping_timeout,
    }
    return HealthPolicy(**{name: value for name, value in asked.items() if value is not None})


# -- HTTP/2 and its checks ---------------------------------------------------------------------


def test_an_empty_environment_asks_for_nothing():
    assert read_environment({}) == Environment(True, None, None, (), ())
    assert read_environment({"PATH": "/bin", "HOME": "/"}) == Environment()


@pytest.mark.parametrize(
    ("value", "http2"), [("", True), ("1", False), ("0", False), ("false", False), (" ", False)]
)
def test_any_value_but_an_empty_one_disables_http2(value, http2):
    assert read_environment({"DISABLE_HTTP2": value}).http2 is http2


@pytest.mark.parametrize(("after_idle", "timeout"), [H2LITE, KUBERNETES])
def test_env_knobs(after_idle, timeout):
    """Names, a bad value, 0 and a negative value; a negative argument is a usage error."""
    good = read_environment({after_idle: "20", timeout: "2.5"})
    assert (good.ping_after_idle, good.ping_timeout, good.warnings) == (20.0, 2.5, ())
    assert good.seen == (after_idle, timeout)

    for bad in ("soon", "-1"):
        refused = read_environment({after_idle: bad, timeout: bad})
        assert policy(refused) == HealthPolicy()
        assert refused.warnings == (
            f"{after_idle} of '{bad}': want seconds, 0 (off) or more; the default of 30 s is used",
            f"{timeout} of '{bad}': want seconds, 0 (off) or more; the default of 15 s is used",
        )

    off = read_environment({after_idle: "0", timeout: "5"})
    assert (policy(off).ping_after_idle, off.warnings) == (0.0, ())
    assert policy(off).found_within_s is None

    with pytest.raises(UsageError, match="ping_after_idle of -1"):
        HealthPolicy(ping_after_idle=-1)


@pytest.mark.parametrize("after_idle", [{}, {H2LITE[0]: "20"}])
@pytest.mark.parametrize("name", [H2LITE[1], KUBERNETES[1]])
def test_no_patience_for_an_ack_switches_the_checks_off(after_idle, name):
    environment = read_environment({**after_idle, name: "0"})

    assert (environment.ping_after_idle, environment.ping_timeout) == (0.0, None)
    assert environment.warnings == ()


def test_our_own_name_goes_before_kubernetes():
    both = {H2LITE[0]: "1", H2LITE[1]: "2", KUBERNETES[0]: "30", KUBERNETES[1]: "0"}

    environment = read_environment(both)

    assert (environment.ping_after_idle, environment.ping_timeout) == (1.0, 2.0)
    assert environment.seen == (H2LITE[0], KUBERNETES[0], H2LITE[1], KUBERNETES[1])


def test_a_bad_value_leaves_the_next_variable_in_line():
    environment = read_environment({H2LITE[0]: "x", KUBERNETES[0]: "45"})

    assert environment.ping_after_idle == 45.0
    (warning,) = environment.warnings
    assert warning == (
        "H2LITE_PING_AFTER_IDLE of 'x': want seconds, 0 (off) or more;"
        " HTTP2_READ_IDLE_TIMEOUT_SECONDS of 45 s is used"
    )


def test_of_two_bad_values_each_is_warned_of():
    environment = read_environment({H2LITE[1]: "x", KUBERNETES[1]: "y"})

    assert environment.ping_timeout is None
    assert [line.partition(":")[0] for line in environment.warnings] == [
        "H2LITE_PING_TIMEOUT of 'x'",
        "HTTP2_PING_TIMEOUT_SECONDS of 'y'",
    ]


def test_a_bad_value_that_nobody_needs_is_not_judged():
    assert read_environment({H2LITE[0]: "1", KUBERNETES[0]: "x"}).warnings == ()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0.0), ("0.0", 0.0), ("00", 0.0), ("7", 7.0), (" 7 ", 7.0), (".5", 0.5), ("5.", 5.0)],
)
def test_seconds_are_digits_with_or_without_a_point(text, seconds):
    environment = read_environment({H2LITE[0]: text})

    assert (environment.ping_after_idle, environment.warnings) == (seconds, ())


@pytest.mark.parametrize(
    "text",
    ["inf", "nan", "-inf", "-0.5", "-0", "+1", "1e3", "1_0", "1,5", "1.2.3", ".", "30s", "0x10",
     "\u0665", "\u00b2", "9" * 400],
)  # fmt: skip
def test_anything_else_is_a_bad_value(text):
    environment = read_environment({H2LITE[0]: text})

    assert environment.ping_after_idle is None
    assert len(environment.warnings) == 1


@pytest.mark.parametrize("text", ["", "  "])
def test_an_empty_value_is_not_set(text):
    environment = read_environment({H2LITE[0]: text, KUBERNETES[0]: "3"})

    assert (environment.ping_after_idle, environment.warnings) == (3.0, ())


@pytest.mark.parametrize("text", ["a\nb\x1b[0m", "\u2603\udc80", "x" * 5000])
def test_a_warning_is_one_short_line_whatever_the_value(text):
    (warning,) = read_environment({H2LITE[0]: text}).warnings

    assert warning.isascii()
    assert warning.isprintable()
    assert len(warning) < 200


# -- proxies -----------------------------------------------------------------------------------


def proxy(host: str, **environ: str) -> str | None:
    """The variable that says by whom https://host is reached."""
    return proxy_for(Origin("https", host, 443), environ)


ALL = ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")


@pytest.mark.parametrize(
    ("scheme", "names"),
    [("http", [*ALL[:2], *ALL[4:]]), ("https", ALL[2:])],
)
def test_each_scheme_has_its_proxy_lower_case_first(scheme, names):
    environ = dict.fromkeys(ALL, "proxy:3128")
    seen = []
    while (name := proxy_for(Origin(scheme, "a.test", 80), environ)) is not None:
        seen.append(name)
        environ[name] = ""  # as good as not set

    assert seen == list(names)


def test_under_cgi_a_request_cannot_name_the_proxy():
    origin = Origin("http", "a.test", 80)

    assert proxy_for(origin, {"HTTP_PROXY": "evil:1", "REQUEST_METHOD": "GET"}) is None
    assert proxy_for(origin, {"http_proxy": "p:1", "REQUEST_METHOD": "GET"}) == "http_proxy"
    assert proxy("a.test", HTTPS_PROXY="p:1", REQUEST_METHOD="GET") == "HTTPS_PROXY"


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST", "localhost.", "a.localhost", "127.0.0.1", "127.255.0.9", "::1",
     "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1"],
)  # fmt: skip
def test_loopback_has_no_proxy(host):
    assert proxy(host, https_proxy="p:1") is None


@pytest.mark.parametrize("host", ["notlocalhost", "localhost.test", "128.0.0.1", "::2", "127.test"])
def test_what_only_looks_like_loopback_has_one(host):
    assert proxy(host, https_proxy="p:1") == "https_proxy"


def test_a_unix_socket_has_no_proxy():
    origin = Origin("http", "a.test", 80, "/run/app.sock")

    assert proxy_for(origin, {"http_proxy": "p:1"}) is None


@pytest.mark.parametrize(
    ("entries", "host"),
    [
        ("*", "a.test"),
        ("b.test, *", "a.test"),
        ("a.test", "a.test"),
        ("A.Test", "a.test"),
        ("a.test", "A.TEST"),
        ("a.test", "a.test."),
        ("a.test.", "a.test"),
        ("a.test", "deep.er.a.test"),
        (".a.test", "a.test"),
        (".a.test", "b.a.test"),
        ("*.a.test", "b.a.test"),
        ("b.test , a.test", "a.test"),
        (" b.test,,a.test ,", "a.test"),
        ("a.test:443", "a.test"),
        ("a.test:443", "b.a.test"),
        ("a.test:", "a.test"),
        ("10.1.2.3", "10.1.2.3"),
        ("10.1.2.3:443", "10.1.2.3"),
        ("10.1.2.3", "::ffff:10.1.2.3"),
        ("10.0.0.0/8", "10.1.2.3"),
        ("10.1.2.3/8", "10.9.9.9"),
        ("fd00::1", "fd00::1"),
        ("FD00:0::1", "fd00::1"),
        ("[fd00::1]", "fd00::1"),
        ("[fd00::1]:443", "fd00::1"),
        ("fd00::/8", "fd12::9"),
        ("[fd00::]/8", "fd12::9"),
        ("fe80::1", "fe80::1%eth0"),
        ("fe80::/10", "fe80::1%eth0"),
    ],
)
def test_no_proxy_covers(entries, host):
    assert proxy(host, https_proxy="p:1") == "https_proxy"
    assert proxy(host, https_proxy="p:1", no_proxy=entries) is None
    assert proxy(host, https_proxy="p:1", NO_PROXY=entries) is None


@pytest.mark.parametrize(
    ("entries", "host"),
    [
        ("a.test", "ba.test"),
        ("b.a.test", "a.test"),
        ("*a.test", "a.test"),
        ("a.test:80", "a.test"),
        ("a.test:x", "a.test"),
        ("10.1.2.3", "10.1.2.4"),
        ("10.1.2.3:80", "10.1.2.3"),
        (".2.3", "10.1.2.3"),
        ("10.0.0.0/8", "11.1.2.3"),
        ("10.0.0.0/8", "a.test"),
        ("10.0.0.0/8", "fd00::1"),
        ("10.0.0.0/99", "10.1.2.3"),
        ("10.0.0.0/", "10.1.2.3"),
        ("/", "10.1.2.3"),
        ("[fd00::1]:80", "fd00::1"),
        ("[fd00::1", "fd00::2"),
        ("[fd00::1]x", "fd00::1"),
        ("fd00::/8", "fe00::1"),
        (".", "a.test"),
        ("[]", "a.test"),
        (":443", "a.test"),
        (",", "a.test"),
        ("", "a.test"),
    ],
)
def test_no_proxy_does_not_cover(entries, host):
    assert proxy(host, https_proxy="p:1", no_proxy=entries) == "https_proxy"


def test_the_lower_case_list_counts_alone():
    environ = {"https_proxy": "p:1", "no_proxy": "b.test", "NO_PROXY": "a.test"}

    assert proxy("a.test", **environ) == "https_proxy"
    assert proxy("b.test", **environ) is None


@pytest.mark.parametrize(
    "host",
    ["1.2.3", "1.2.3.4.5", "256.1.1.1", "0x7f.1", "2130706433", "01.02.03.04", "::1::", "%", "a%b",
     ":", "..", "", "-", "\u0661.1.1.1", "f" * 300, "1" * 5000],
)  # fmt: skip
def test_an_odd_host_is_judged_like_any_other(host):
    environ = {"https_proxy": "p:1", "no_proxy": "10.0.0.0/8,[::2]:443,1.2.3.4,b.test"}

    assert proxy(host, **environ) == "https_proxy"
    assert proxy(host, **environ, NO_PROXY="*") == "https_proxy"
    assert proxy(host, https_proxy="p:1", no_proxy="*") is None


@pytest.mark.parametrize(
    ("environ", "name", "excepting"),
    [
        ({"HTTPS_PROXY": "http://user:secret@proxy:3128"}, "HTTPS_PROXY", "NO_PROXY"),
        ({"all_proxy": "socks5://secret", "no_proxy": "b.test"}, "all_proxy", "no_proxy"),
    ],
)
def test_an_origin_behind_a_proxy_is_refused_without_a_word_of_the_value(environ, name, excepting):
    with pytest.raises(UsageError) as caught:
        check_proxy(Origin("https", "a.test", 443), environ)

    assert str(caught.value) == (
        f"{name} is set, and h2lite goes through no proxy: unset it, add a.test to {excepting},"
        " or ignore the environment with trust_env=False"
    )


def test_an_origin_without_a_proxy_passes():
    check_proxy(Origin("https", "a.test", 443), {"http_proxy": "p:1"})
    check_proxy(Origin("https", "a.test", 443), {"https_proxy": "p:1", "no_proxy": ".test"})


def test_proxies_are_seen_and_empty_variables_are_not():
    environ = {"https_proxy": "p:1", "NO_PROXY": "a.test", "DISABLE_HTTP2": "1", "all_proxy": ""}

    assert read_environment(environ).seen == ("DISABLE_HTTP2", "https_proxy", "NO_PROXY")
