"""h2lite: HTTP/2 on plain sockets, small enough to read and exact enough to measure.

    with h2lite.connect("https://localhost:8443", cafile="cert.pem") as connection:
        print(connection.ping(timeout=1.0).rtt)
        print(connection.request("GET", "/healthz").read())

Names load when they are first used (PEP 562), so importing the package costs next to nothing.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .client import Headers, PingResult, PooledConnection, Response, connect
    from .connection import Connection
    from .errors import (
        ConnectError,
        ConnectionLost,
        ConnectTimeout,
        ErrorCode,
        H2liteError,
        LocalProtocolError,
        PingTimeout,
        ReadTimeout,
        RemoteProtocolError,
        StreamReset,
        TLSError,
        UsageError,
    )
    from .exchange import Reply, Request
    from .server import Server

_HOME = {
    "Connection": "connection",
    "ConnectError": "errors",
    "ConnectTimeout": "errors",
    "ConnectionLost": "errors",
    "ErrorCode": "errors",
    "H2liteError": "errors",
    "Headers": "client",
    "LocalProtocolError": "errors",
    "PingResult": "client",
    "PingTimeout": "errors",
    "PooledConnection": "client",
    "ReadTimeout": "errors",
    "RemoteProtocolError": "errors",
    "Reply": "exchange",
    "Request": "exchange",
    "Response": "client",
    "Server": "server",
    "StreamReset": "errors",
    "TLSError": "errors",
    "UsageError": "errors",
    "connect": "client",
}

__all__ = [
    "ConnectError",
    "ConnectTimeout",
    "Connection",
    "ConnectionLost",
    "ErrorCode",
    "H2liteError",
    "Headers",
    "LocalProtocolError",
    "PingResult",
    "PingTimeout",
    "PooledConnection",
    "ReadTimeout",
    "RemoteProtocolError",
    "Reply",
    "Request",
    "Response",
    "Server",
    "StreamReset",
    "TLSError",
    "UsageError",
    "connect",
]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module 'h2lite' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
