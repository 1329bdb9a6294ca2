"""`h2lite doctor`: what h2lite finds around it, on one page to paste into a bug report.

It changes nothing and connects to nothing; a figure that cannot be read is said to be so.  The
kernel's figures are Linux'.
"""

from __future__ import annotations

import json
import os
import platform
import selectors
import sys
import time

from .. import __version__
from ..environment import PROXIES, PROXY_VARIABLES, proxy_for, read_environment
from ..health import HealthPolicy
from ..loop import BOOTTIME
from ..origin import DEFAULT_PORTS, Origin
from ..transport import SocketOptions
from . import DONE, LOSS, check_output

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping
    from typing import Any

# Each package and what to install for it.
PACKAGES = {"hpack": "h2lite", "h11": "h2lite[http1]", "cryptography": "h2lite[certs]"}
# Beside those of environment.py: what Python's ssl and OpenSSL go by.
TLS_VARIABLES = ("SSLKEYLOGFILE", "SSL_CERT_FILE", "SSL_CERT_DIR")

SYSCTL_FOLDER = "/proc/sys/net/ipv4"
RTO_S_MIN = 0.2  # TCP_RTO_MIN, by which the kernel reckons whatever the round trip
RTO_S_MAX = 120.0  # TCP_RTO_MAX, where no tcp_rto_max_ms says otherwise
SYN_RTO_S = 1.0  # TCP_TIMEOUT_INIT
RETRIES_MAX = 255  # as the kernel bounds them


def run(options: argparse.Namespace) -> int:
    """Print the page, or the same as JSON; LOSS when there is something to mend."""
    check_output()
    report = examine(os.environ)
    if options.json:
        print(json.dumps(report))
    else:
        for line in page(report):
            print(line)
    return LOSS if report["to_mend"] else DONE


# -- what there is -----------------------------------------------------------------------------


def examine(environ: Mapping[str, str]) -> dict[str, Any]:
    """Everything the page says, as JSON has it; None for what cannot be known here."""
    environment = read_environment(environ)
    asked: dict[str, Any] = {
        "ping_after_idle": environment.ping_after_idle,
        "ping_timeout": environment.ping_timeout,
    }
    policy = HealthPolicy(**{name: value for name, value in asked.items() if value is not None})
    seen = (*environment.seen, *(name for name in TLS_VARIABLES if environ.get(name)))
    report: dict[str, Any] = {
        "h2lite": __version__,
        "python": {
            "version": platform.python_version(),
            "implementation": platform.python_implementation(),
            "build": " ".join((*platform.python_build(), platform.python_compiler())),
        },
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "tls": _tls(),
        "packages": {name: _version(name) for name in PACKAGES},
        "selector": selectors.DefaultSelector.__name__,
        "clock": _clock(),
        "descriptors": _descriptors(),
        "kernel": kernel(),
        "environment": {
            name: None if name in PROXY_VARIABLES else environ[name] for name in seen
        },
        "http2": environment.http2,
        "health": {
            **{name: getattr(policy, name) for name in policy.slots()},
            "found_within": policy.found_within_s,
        },
    }
    report["to_mend"] = [*environment.warnings, *_faults(report, environ)]
    return report


def _tls() -> dict[str, Any] | None:
    try:
        import ssl
    except ImportError:
        return None
    return {
        "openssl": ssl.OPENSSL_VERSION,
        "alpn": ssl.HAS_ALPN,
        "tls_1_3": ssl.HAS_TLSv1_3,
    }


def _version(package: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _clock() -> dict[str, Any]:
    if BOOTTIME is not None:
        return {
            "name": "CLOCK_BOOTTIME",
            "resolution": time.clock_getres(BOOTTIME),
            "counts_suspend": True,
        }
    info = time.get_clock_info("monotonic")
    # Windows' counts the time asleep, macOS' does not; of others we know nothing.
    counts = {"win32": True, "darwin": False}.get(sys.platform)
    return {"name": info.implementation, "resolution": info.resolution, "counts_suspend": counts}


def _descriptors() -> dict[str, Any] | None:
    try:
        import resource
    except ImportError:  # Windows, where sockets are not limited in this way
        return None
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft, hard = ("unlimited" if n == resource.RLIM_INFINITY else n for n in limits)
    return {"limit": soft, "limit_max": hard}


def kernel() -> dict[str, Any]:
    """The kernel's patience with silent TCP connections, and what it comes to in seconds."""
    names = ("tcp_retries2", "tcp_keepalive_time", "tcp_keepalive_intvl", "tcp_keepalive_probes",
             "tcp_syn_retries")  # fmt: skip
    found: dict[str, Any] = {name: _sysctl(name) for name in names}
    retries, idle, interval, probes, syn_retries = found.values()
    rto_ms_max = _sysctl("tcp_rto_max_ms")  # since Linux 6.15
    rto_s_max = RTO_S_MAX if rto_ms_max is None else rto_ms_max / 1000
    linear = _sysctl("tcp_syn_linear_timeouts") or 0  # since Linux 6.5: repeated without doubling
    found["unacknowledged_s"] = found["keepalive_s"] = found["connecting_s"] = None
    if retries is not None:
        found["unacknowledged_s"] = patience_s(retries, RTO_S_MIN, rto_s_max)
    if None not in (idle, interval, probes):
        found["keepalive_s"] = idle + interval * probes
    if syn_retries is not None:
        found["connecting_s"] = linear * SYN_RTO_S + patience_s(syn_retries, SYN_RTO_S, rto_s_max)
    return found


def patience_s(retries: int, rto_s: float, rto_s_max: float) -> float:
    """How long the kernel repeats what is not acknowledged, doubling its timeout each time.

    Source: tcp_model_timeout in Linux' net/ipv4/tcp_timer.c.
    """
    waits = range(min(retries, RETRIES_MAX) + 1)  # the last is the one in which nothing comes
    return round(sum(min(rto_s * 2.0**wait, rto_s_max) for wait in waits), 3)


def _sysctl(name: str) -> int | None:
    try:
        with open(os.path.join(SYSCTL_FOLDER, name), encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


def _faults(report: dict[str, Any], environ: Mapping[str, str]) -> Iterator[str]:
    """What a user should mend, beside values that are none."""
    packages, tls = report["packages"], report["tls"]
    if packages["hpack"] is None:
        yield "hpack is not installed, and nothing but PING works without it: pip install 'h2lite'"
    if not report["http2"] and packages["h11"] is None:
        yield "DISABLE_HTTP2 is set and h11 is not installed: pip install 'h2lite[http1]'"
    if tls is None:
        yield "this Python has no ssl: https:// URLs cannot be reached"
    elif not tls["alpn"]:
        yield "this Python's OpenSSL has no ALPN: https:// URLs cannot be reached by HTTP/2"
    for scheme in PROXIES:
        # A host that NO_PROXY names in no other way than by "*".
        name = proxy_for(Origin(scheme, "host.invalid", DEFAULT_PORTS[scheme]), environ)
        if name is not None:
            yield (
                f"{name} is set, and h2lite goes through no proxy: {scheme}:// URLs are refused"
                " unless NO_PROXY names their host"
            )


# -- how it reads ------------------------------------------------------------------------------


def page(report: dict[str, Any]) -> Iterator[str]:
    """The lines of the page: each part's name in a column of its own."""
    for name, *lines in _parts(report):
        for line in lines:
            yield f"{name:<12} {line}"
            name = ""


def _parts(report: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """The name of each part, and its lines."""
    python, tls, descriptors = report["python"], report["tls"], report["descriptors"]
    yield "h2lite", report["h2lite"]
    yield "Python", f"{python['version']}, {python['implementation']}, {python['build']}"
    yield "system", report["system"]
    if tls is None:
        yield "TLS", "this Python has no ssl"
    else:
        yield "TLS", f"{tls['openssl']}; ALPN {_yes(tls['alpn'])}, TLS 1.3 {_yes(tls['tls_1_3'])}"
    yield "packages", *(_package(*package) for package in report["packages"].items())
    yield "selector", report["selector"]
    yield "clock", _clock_line(report["clock"])
    if descriptors is None:
        yield "descriptors", "no limit known here"
    else:
        limit, limit_max = descriptors["limit"], descriptors["limit_max"]
        yield "descriptors", f"{limit} at most in this process, which may raise it to {limit_max}"
    yield "kernel", *_kernel_lines(report["kernel"])
    yield "environment", *_environment_lines(report)
    yield "health", *_health_lines(report["health"])
    yield "to mend", *(report["to_mend"] or ["nothing found"])


def _package(name: str, version: str | None) -> str:
    if version is not None:
        return f"{name} {version}"
    return f"{name} not installed: pip install '{PACKAGES[name]}'"


def _clock_line(clock: dict[str, Any]) -> str:
    counts = {True: "goes on", False: "stands still", None: "may stand still"}
    suspend = counts[clock["counts_suspend"]]
    return f"{clock['name']}, resolution {clock['resolution']:g} s, {suspend} during suspend"


def _kernel_lines(kernel: dict[str, Any]) -> Iterator[str]:
    def figures(*names: str) -> str:
        return ", ".join(
            f"{name} {'cannot be read here' if kernel[name] is None else kernel[name]}"
            for name in names
        )

    yield figures("tcp_retries2")
    if kernel["unacknowledged_s"] is not None:
        patience = describe_seconds(kernel["unacknowledged_s"])
        yield (
            "  a silent connection with unacknowledged data is given up by the kernel after about"
            f" {patience}"
        )
    yield figures("tcp_keepalive_time", "tcp_keepalive_intvl", "tcp_keepalive_probes")
    if kernel["keepalive_s"] is not None:
        patience = describe_seconds(kernel["keepalive_s"])
        yield f"  one without, where a program asks for keepalive and says no more: {patience}"
    ours = SocketOptions()
    patience = describe_seconds(
        ours.keepalive_idle + ours.keepalive_interval * ours.keepalive_count
    )
    yield (
        f"  h2lite asks for {ours.keepalive_idle} s, then {ours.keepalive_count} times"
        f" {ours.keepalive_interval} s: {patience}"
    )
    yield figures("tcp_syn_retries")
    if kernel["connecting_s"] is not None:
        patience = describe_seconds(kernel["connecting_s"])
        yield f"  connecting is given up after {patience}, or at h2lite's connect_timeout before"


def _environment_lines(report: dict[str, Any]) -> list[str]:
    lines = [
        f"{name} is set" if value is None else f"{name}={value!a}"
        for name, value in report["environment"].items()
    ]
    if not report["http2"]:
        lines.append("HTTP/2 is switched off")
    return lines or ["no variable is set that h2lite knows"]


def _health_lines(health: dict[str, Any]) -> Iterator[str]:
    names = HealthPolicy.slots()
    switches = [name for name in names if isinstance(health[name], bool)]
    yield ", ".join(f"{name} {health[name]:g} s" for name in names if name not in switches)
    yield ", ".join(f"{name} {'on' if health[name] else 'off'}" for name in switches)
    if health["found_within"] is None:
        yield "the checks are off: nobody asks a silent connection"
    else:
        yield f"a dead, quiet connection is found within {health['found_within']:g} s"


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def describe_seconds(seconds: float) -> str:
    """A duration for people: 49.5 s, 15 min 25 s, 2 h 11 min 15 s."""
    if seconds < 60:
        return f"{seconds:g} s"
    minutes, whole = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (whole, "s"))
    return " ".join(f"{value} {unit}" for value, unit in parts if value)
