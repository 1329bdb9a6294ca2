"""`h2lite doctor`: what the page says, on this system and on others, and what is to mend."""

from __future__ import annotations

import json
import os
import socket
import ssl
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

from h2lite import __version__
from h2lite.cli import doctor, main
from h2lite.cli.doctor import describe_seconds, examine, page, patience_s
from h2lite.environment import VARIABLES
from h2lite.health import HealthPolicy

LINUX = {
    "tcp_retries2": "15\n",
    "tcp_keepalive_time": "7200\n",
    "tcp_keepalive_intvl": "75\n",
    "tcp_keepalive_probes": "9\n",
    "tcp_syn_retries": "6\n",
}


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable that the page would show."""
    for name in (*VARIABLES, *doctor.TLS_VARIABLES, "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the kernel's figures, those of an older Linux."""
    monkeypatch.setattr(doctor, "SYSCTL_FOLDER", str(tmp_path))
    for name, text in LINUX.items():
        (tmp_path / name).write_text(text)
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = main(["doctor", *arguments])
    said = capsys.readouterr()
    assert said.err == ""
    return code, said.out


def lines(part: str, **environ: str) -> list[str]:
    """The page's lines of one part."""
    found, current = [], ""
    for line in page(examine(environ)):
        current = line[:12].strip() or current
        if current == part:
            found.append(line[13:])
    return found


# -- the page ----------------------------------------------------------------------------------


def test_the_page_says_what_there_is_and_exits_with_0(capsys):
    code, out = run(capsys)

    assert code == 0
    parts = [line.split("  ")[0] for line in out.splitlines() if not line.startswith(" ")]
    assert parts == [
        "h2lite", "Python", "system", "TLS", "packages", "selector", "clock", "descriptors",
        "kernel", "environment", "health", "to mend",
    ]  # fmt: skip
    assert f"h2lite       {__version__}\n" in out
    assert ssl.OPENSSL_VERSION in out
    assert f"hpack {metadata.version('hpack')}\n" in out
    assert "environment  no variable is set that h2lite knows\n" in out
    assert "ping_after_idle 30 s, ping_timeout 15 s, stale_after 10 s" in out
    assert "a dead, quiet connection is found within 49.5 s\n" in out
    assert out.endswith("to mend      nothing found\n")


def test_json_is_the_same_as_one_object(capsys):
    code, out = run(capsys, "--json")

    assert code == 0
    assert out.count("\n") == 1
    report = json.loads(out)
    assert report == json.loads(json.dumps(examine(os.environ)))
    assert report["h2lite"] == __version__
    assert report["tls"] == {"openssl": ssl.OPENSSL_VERSION, "alpn": True, "tls_1_3": True}
    assert report["health"]["found_within"] == HealthPolicy().found_within_s
    assert (report["environment"], report["to_mend"]) == ({}, [])


def test_no_socket_is_opened(capsys, monkeypatch):
    def refuse(*arguments: object) -> None:
        raise AssertionError("a socket")

    monkeypatch.setattr(socket.socket, "__init__", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)

    assert run(capsys)[0] == 0


# -- the kernel --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("retries", "seconds"),
    [(0, 0.2), (1, 0.6), (8, 102.2), (9, 204.6), (10, 324.6), (15, 924.6), (255, 29724.6)],
)
def test_the_kernels_patience_doubles_up_to_its_cap(retries, seconds):
    assert patience_s(retries, 0.2, 120.0) == seconds


def test_a_figure_beyond_all_bounds_costs_no_time():
    assert patience_s(10**18, 0.2, 120.0) == patience_s(255, 0.2, 120.0)


def test_the_figures_are_told_with_what_they_stand_for(kernel):
    given_up = "a silent connection with unacknowledged data is given up by the kernel after about"

    assert lines("kernel") == [
        "tcp_retries2 15",
        f"  {given_up} 15 min 25 s",
        "tcp_keepalive_time 7200, tcp_keepalive_intvl 75, tcp_keepalive_probes 9",
        "  one without, where a program asks for keepalive and says no more: 2 h 11 min 15 s",
        "  h2lite asks for 60 s, then 4 times 15 s: 2 min",
        "tcp_syn_retries 6",
        "  connecting is given up after 2 min 7 s, or at h2lite's connect_timeout before",
    ]


def test_newer_kernels_set_the_cap_and_repeat_a_syn_without_doubling(kernel):
    (kernel / "tcp_rto_max_ms").write_text("10000\n")
    (kernel / "tcp_syn_linear_timeouts").write_text("4\n")

    found = examine({})["kernel"]

    # 0.2 s to 6.4 s doubled, then 10 s each; 1 s four times and to 8 s doubled, then 10 s each.
    assert found["unacknowledged_s"] == pytest.approx(12.6 + 10 * 10)
    assert found["connecting_s"] == pytest.approx(4 + 15 + 3 * 10)


@pytest.mark.parametrize("text", [None, "", "many\n", "\xff"])
def test_a_figure_that_cannot_be_read_is_said_to_be_so(kernel, text):
    for name in LINUX:
        if text is None:
            (kernel / name).unlink()
        else:
            (kernel / name).write_bytes(text.encode("latin-1"))
    unknown = "cannot be read here"

    assert lines("kernel") == [
        f"tcp_retries2 {unknown}",
        ", ".join(f"tcp_keepalive_{name} {unknown}" for name in ("time", "intvl", "probes")),
        "  h2lite asks for 60 s, then 4 times 15 s: 2 min",
        f"tcp_syn_retries {unknown}",
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="the figures are Linux'")
def test_on_this_linux_the_figures_are_there():
    assert None not in examine({})["kernel"].values()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (0.2, "0.2 s"), (49.5, "49.5 s"), (60, "1 min"), (131.0, "2 min 11 s"),
        (924.6, "15 min 25 s"), (3600, "1 h"), (7875, "2 h 11 min 15 s"), (3601.0, "1 h 1 s"),
    ],
)  # fmt: skip
def test_seconds_for_people(seconds, text):
    assert describe_seconds(seconds) == text


# -- other systems -----------------------------------------------------------------------------


def test_the_clock_is_the_loops(monkeypatch):
    monkeypatch.setattr(doctor, "BOOTTIME", None)
    info = time.get_clock_info("monotonic")
    for system, suspend in (
        ("darwin", "stands still"), ("win32", "goes on"), ("linux", "may stand still"),
    ):  # fmt: skip
        monkeypatch.setattr(sys, "platform", system)

        assert lines("clock") == [
            f"{info.implementation}, resolution {info.resolution:g} s, {suspend} during suspend"
        ]


@pytest.mark.skipif(not hasattr(time, "CLOCK_BOOTTIME"), reason="no CLOCK_BOOTTIME here")
def test_where_there_is_one_the_clock_counts_suspend():
    (line,) = lines("clock")

    assert line.startswith("CLOCK_BOOTTIME, resolution ")
    assert line.endswith(" s, goes on during suspend")


def test_descriptors_are_told_with_the_limit_of_the_limit(monkeypatch):
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))

    assert lines("descriptors") == ["256 at most in this process, which may raise it to unlimited"]


def test_without_such_a_limit_none_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)

    assert lines("descriptors") == ["no limit known here"]


# -- what is to mend ---------------------------------------------------------------------------


def missing(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    system = metadata.version

    def version(package: str) -> str:
        if package in packages:
            raise metadata.PackageNotFoundError(package)
        return system(package)

    monkeypatch.setattr(metadata, "version", version)


def test_a_missing_extra_is_told_and_no_fault(monkeypatch):
    missing(monkeypatch, "h11", "cryptography")

    assert lines("packages")[1:] == [
        "h11 not installed: pip install 'h2lite[http1]'",
        "cryptography not installed: pip install 'h2lite[certs]'",
    ]
    assert examine({})["to_mend"] == []


def test_http1_without_the_package_that_speaks_it_is_to_mend(monkeypatch):
    assert examine({"DISABLE_HTTP2": "1"})["to_mend"] == []
    assert lines("environment", DISABLE_HTTP2="1") == [
        "DISABLE_HTTP2='1'", "HTTP/2 is switched off"
    ]  # fmt: skip
    missing(monkeypatch, "h11")

    assert examine({"DISABLE_HTTP2": "1"})["to_mend"] == [
        "DISABLE_HTTP2 is set and h11 is not installed: pip install 'h2lite[http1]'"
    ]


def test_a_missing_hpack_is_to_mend(monkeypatch):
    missing(monkeypatch, "hpack")

    (fault,) = examine({})["to_mend"]
    assert fault.startswith("hpack is not installed")


def test_python_without_tls_is_to_mend(monkeypatch):
    monkeypatch.setattr(ssl, "HAS_ALPN", False)
    assert examine({})["to_mend"] == [
        "this Python's OpenSSL has no ALPN: https:// URLs cannot be reached by HTTP/2"
    ]

    monkeypatch.setitem(sys.modules, "ssl", None)
    assert lines("TLS") == ["this Python has no ssl"]
    assert examine({})["to_mend"] == ["this Python has no ssl: https:// URLs cannot be reached"]


def test_a_bad_variable_is_to_mend_and_the_exit_code_says_so(capsys, monkeypatch):
    monkeypatch.setenv("H2LITE_PING_AFTER_IDLE", "so\u00f6n")
    monkeypatch.setenv("HTTP2_PING_TIMEOUT_SECONDS", "2")

    code, out = run(capsys)

    assert code == 1
    assert out.isascii()
    assert "environment  H2LITE_PING_AFTER_IDLE='so\\xf6n'\n" in out
    assert "  HTTP2_PING_TIMEOUT_SECONDS='2'\n" in out
    assert "ping_after_idle 30 s, ping_timeout 2 s," in out
    assert "found within 36.5 s\n" in out
    assert "to mend      H2LITE_PING_AFTER_IDLE of 'so\\xf6n': want seconds" in out


def test_checks_that_are_off_are_told_and_no_fault():
    assert lines("health", H2LITE_PING_AFTER_IDLE="0")[-1] == (
        "the checks are off: nobody asks a silent connection"
    )
    assert examine({"H2LITE_PING_AFTER_IDLE": "0"})["to_mend"] == []


SECRET = "http://user:secret@proxy.test:3128"


@pytest.mark.parametrize("arguments", [[], ["--json"]])
def test_of_a_proxy_only_the_name_is_told(capsys, monkeypatch, arguments):
    monkeypatch.setenv("https_proxy", SECRET)
    monkeypatch.setenv("NO_PROXY", "secret.test")
    monkeypatch.setenv("SSLKEYLOGFILE", "/tmp/keys")

    code, out = run(capsys, *arguments)

    assert code == 1
    assert "secret" not in out
    assert "/tmp/keys" in out
    assert "https_proxy is set, and h2lite goes through no proxy: https:// URLs are refused" in out


def test_proxies_that_no_host_uses_are_no_fault():
    assert lines("environment", http_proxy=SECRET, no_proxy="*") == [
        "http_proxy is set", "no_proxy is set"
    ]  # fmt: skip
    assert examine({"http_proxy": SECRET, "no_proxy": "*"})["to_mend"] == []
