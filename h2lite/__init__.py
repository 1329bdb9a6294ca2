"""h2lite: HTTP/2 on plain sockets, small enough to read and exact enough to measure.

    with h2lite.ConnectionPool(cafile="cert.pem") as pool:
        print(pool.get("https://localhost:8443/healthz").read())
        for connection in pool.connections:
            print(connection, connection.ping(timeout=1.0).rtt)

Names load when they are first used (PEP 562), so importing the package costs next to nothing.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .client import (
        ConnectionChanged,
        ConnectionPool,
        EnvironmentWarning,
        OriginCalmed,
        PingResult,
        PooledConnection,
        RequestMoved,
        RequestRetried,
        Response,
        connect,
    )
    from .connection import Connection
    from .errors import (
        ConnectError,
        ConnectionLost,
        ConnectTimeout,
        ErrorCode,
        H2liteError,
        LocalProtocolError,
        PingTimeout,
        PoolTimeout,
        ReadTimeout,
        RemoteProtocolError,
        RequestCancelled,
        ResponseTooLarge,
        StreamReset,
        TLSError,
        UsageError,
        WriteTimeout,
    )
    from .exchange import Reply, Request
    from .health import HealthPolicy
    from .limits import Limits
    from .message import Headers
    from .server import Server
    from .timeout import Timeout
    from .transport import SocketOptions

_HOME = {
    "connect": "client",
    "ConnectError": "errors",
    "Connection": "connection",
    "ConnectionChanged": "client",
    "ConnectionLost": "errors",
    "ConnectionPool": "client",
    "ConnectTimeout": "errors",
    "EnvironmentWarning": "client",
    "ErrorCode": "errors",
    "H2liteError": "errors",
    "Headers": "message",
    "HealthPolicy": "health",
    "Limits": "limits",
    "LocalProtocolError": "errors",
    "OriginCalmed": "client",
    "PingResult": "client",
    "PingTimeout": "errors",
    "PooledConnection": "client",
    "PoolTimeout": "errors",
    "ReadTimeout": "errors",
    "RemoteProtocolError": "errors",
    "Reply": "exchange",
    "Request": "exchange",
    "RequestCancelled": "errors",
    "RequestMoved": "client",
    "RequestRetried": "client",
    "Response": "client",
    "ResponseTooLarge": "errors",
    "Server": "server",
    "SocketOptions": "transport",
    "StreamReset": "errors",
    "Timeout": "timeout",
    "TLSError": "errors",
    "UsageError": "errors",
    "WriteTimeout": "errors",
}

__all__ = [
    "connect",
    "ConnectError",
    "Connection",
    "ConnectionChanged",
    "ConnectionLost",
    "ConnectionPool",
    "ConnectTimeout",
    "EnvironmentWarning",
    "ErrorCode",
    "H2liteError",
    "Headers",
    "HealthPolicy",
    "Limits",
    "LocalProtocolError",
    "OriginCalmed",
    "PingResult",
    "PingTimeout",
    "PooledConnection",
    "PoolTimeout",
    "ReadTimeout",
    "RemoteProtocolError",
    "Reply",
    "Request",
    "RequestCancelled",
    "RequestMoved",
    "RequestRetried",
    "Response",
    "ResponseTooLarge",
    "Server",
    "SocketOptions",
    "StreamReset",
    "Timeout",
    "TLSError",
    "UsageError",
    "WriteTimeout",
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
