"""The environment: what variables ask of h2lite, and which proxy they would send it through.

A mapping goes in, values and texts come out; nothing is read from the system, logged or connected
here.  Grounds: the variables of Kubernetes' client for Go, and curl's and Go's rules of proxies.
"""

from __future__ import annotations

import math

from .errors import UsageError
from .health import HealthPolicy
from .value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from ipaddress import IPv4Address, IPv6Address

    from .origin import Origin

DISABLE_HTTP2 = "DISABLE_HTTP2"
# Whatever is set and valid counts, our own name before Kubernetes'.
PING_AFTER_IDLE = ("H2LITE_PING_AFTER_IDLE", "HTTP2_READ_IDLE_TIMEOUT_SECONDS")
PING_TIMEOUT = ("H2LITE_PING_TIMEOUT", "HTTP2_PING_TIMEOUT_SECONDS")
NO_PROXY = ("no_proxy", "NO_PROXY")
PROXIES = {
    "http": ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"),
    "https": ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"),
}
# May hold passwords, or names that are nobody's business: their values are never shown.
PROXY_VARIABLES = (*PROXIES["http"][:2], *PROXIES["https"], *NO_PROXY)
VARIABLES = (DISABLE_HTTP2, *PING_AFTER_IDLE, *PING_TIMEOUT, *PROXY_VARIABLES)

SHOWN_MAX = 40  # characters of a faulty value: enough to know it by, and still one line


class Environment(Value):
    """What the variables ask for; explicit arguments go before all of it.

    http2             False: DISABLE_HTTP2 is set
    ping_after_idle   seconds, 0: no checks; None: no variable says so
    ping_timeout      seconds, above 0; None likewise
    warnings          a line for each value that is none: what is wrong, and what counts instead
    seen              the variables of VARIABLES that are set, empty ones left out
    """

    __slots__ = ("http2", "ping_after_idle", "ping_timeout", "warnings", "seen")

    def __init__(
        self,
        http2: bool = True,
        ping_after_idle: float | None = None,
        ping_timeout: float | None = None,
        warnings: tuple[str, ...] = (),
        seen: tuple[str, ...] = (),
    ) -> None:
        self.http2 = http2
        self.ping_after_idle = ping_after_idle
        self.ping_timeout = ping_timeout
        self.warnings = warnings
        self.seen = seen


def read_environment(environ: Mapping[str, str]) -> Environment:
    """What these variables ask of h2lite; never raises.

    Seconds are digits, with or without a decimal point.  What is none is treated as not set, with
    a warning: the next variable in line counts, or the default.  0 switches the checks off, said
    of either: without patience for an ack there is nothing to ask for.
    """
    policy = HealthPolicy()
    warnings: list[str] = []
    after_idle = _seconds(environ, PING_AFTER_IDLE, policy.ping_after_idle, warnings)
    timeout = _seconds(environ, PING_TIMEOUT, policy.ping_timeout, warnings)
    if timeout == 0:
        after_idle, timeout = 0.0, None
    return Environment(
        not environ.get(DISABLE_HTTP2),
        after_idle,
        timeout,
        tuple(warnings),
        tuple(name for name in VARIABLES if environ.get(name)),
    )


def _seconds(
    environ: Mapping[str, str], names: tuple[str, ...], default: float, warnings: list[str]
) -> float | None:
    """The first valid value of these variables, None without one; warns of what is none."""
    found = None
    used = f"the default of {default:g} s"
    faulty = []
    for name in names:
        text = environ.get(name, "").strip()
        if not text:
            continue
        found = _number(text)
        if found is not None:
            used = f"{name} of {found:g} s"
            break
        faulty.append(f"{name} of {_shown(text)}: want seconds, 0 (off) or more")
    warnings += [f"{fault}; {used} is used" for fault in faulty]
    return found


def _number(text: str) -> float | None:
    """The number that plain digits stand for; None for what float() would take beside them."""
    if not text.isascii() or not text.replace(".", "", 1).isdigit():
        return None
    value = float(text)
    return value if math.isfinite(value) else None  # so many digits are no duration


def _shown(text: str) -> str:
    return ascii(text) if len(text) <= SHOWN_MAX else ascii(text[:SHOWN_MAX]) + "..."


# -- proxies -----------------------------------------------------------------------------------


def check_proxy(origin: Origin, environ: Mapping[str, str]) -> None:
    """Raise UsageError where a proxy is wanted for an origin: h2lite goes through none.

    To go past it in silence would be wrong: it may be there to be the only way out.
    """
    name = proxy_for(origin, environ)
    if name is not None:
        excepting = _first(environ, NO_PROXY) or NO_PROXY[-1]
        raise UsageError(
            f"{name} is set, and h2lite goes through no proxy: unset it, add {origin.host} to"
            f" {excepting}, or ignore the environment with trust_env=False"
        )


def proxy_for(origin: Origin, environ: Mapping[str, str]) -> str | None:
    """The variable whose proxy is meant for this origin; None: it is to be reached directly.

    Loopback and UNIX sockets have none.  NO_PROXY is a list of names, each with its subdomains,
    of addresses, each of these with or without a port, of address blocks, or "*".
    """
    name = _first(environ, _proxies(origin, environ))
    if name is None or origin.unix_path is not None:
        return None
    host = origin.host.lower().rstrip(".")
    address = _address(host)
    if address is None:
        local = host == "localhost" or host.endswith(".localhost")
    else:
        local = address.is_loopback
    if local:
        return None
    excepting = _first(environ, NO_PROXY)
    if excepting is not None:
        for entry in environ[excepting].lower().replace(",", " ").split():
            if _covers(entry, host, address, origin.port):
                return None
    return name


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    """The first of these variables that is set; an empty one is not."""
    return next((name for name in names if environ.get(name)), None)


def _proxies(origin: Origin, environ: Mapping[str, str]) -> tuple[str, ...]:
    names: tuple[str, ...] = PROXIES[origin.scheme]
    # Under CGI this one is a request's field "Proxy": anybody could send us anywhere.
    if environ.get("REQUEST_METHOD"):
        names = tuple(name for name in names if name != "HTTP_PROXY")
    return names


def _covers(
    entry: str, host: str, address: IPv4Address | IPv6Address | None, port: int
) -> bool:
    """Whether an entry of NO_PROXY means this host; one that nobody can read means none."""
    if entry == "*":
        return True
    if "/" in entry:
        return address is not None and _is_in_block(address, entry)
    if entry.startswith("["):
        name, _, rest = entry[1:].partition("]")
        wanted = rest.removeprefix(":")
    elif entry.count(":") == 1:
        name, _, wanted = entry.partition(":")
    else:  # more colons are an IPv6 address's own
        name, wanted = entry, ""
    if wanted and wanted != str(port):
        return False
    if address is not None:
        return address == _address(name)
    name = name.removeprefix("*.").strip(".")
    return host == name or host.endswith(f".{name}")


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """A numeric address without its zone, IPv4 in IPv6 as IPv4; None for anything else."""
    from ipaddress import ip_address

    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _is_in_block(address: IPv4Address | IPv6Address, entry: str) -> bool:
    from ipaddress import ip_network

    try:
        # Bits beyond the prefix are no fault: curl and Go pass over them.
        return address in ip_network(entry.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return False
