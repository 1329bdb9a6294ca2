"""A small HTTP/2 server for demos, tests, benchmarks and teaching.

One thread, one loop: a handler is called when a request is complete, returns a Reply at once,
and must not block.  Bodies may be octets, a file or an iterator; they are pulled only as fast as
the client takes them.
"""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys

from . import events as ev
from .connection import Connection
from .errors import ErrorCode, TLSError, UsageError
from .fields import join_cookies
from .loop import READ, Link, Loop, Source, monotonic
from .origin import parse_url
from .stream import CLOSED
from .transport import TLSTransport, Transport, address_text, check_unix_sockets, prepare
from .value import Value

TYPE_CHECKING = False
if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator
    from typing import Any, BinaryIO

    from .events import Fields
    from .stream import Stream
    from .transport import Address

CONNECTIONS_MAX = 1000  # further ones are closed at accept, so that these keep their service
ACCEPTS_A_TURN_MAX = 64  # so that a rush of newcomers does not hold up who is here
HANDSHAKE_TIMEOUT_S = 10.0
BACKLOG = 256
REQUEST_OCTETS_MAX = 2**20  # of one request's content, which is handed to the handler whole
# Kept queued for one response: enough for a turn's send, little enough for a thousand streams.
BODY_QUEUED_OCTETS = 65536


class Request(Value):
    """What a client asked.

    method, scheme, authority, path   as text; path includes the query
    headers                           regular fields as (name, value) pairs of text
    body                              the content, whole
    address                           the client's address and port as text
    """

    __slots__ = ("method", "scheme", "authority", "path", "headers", "body", "address")

    def __init__(self, fields: Fields, body: bytes, address: str) -> None:
        pseudo = dict(field for field in fields if field[0].startswith(b":"))
        self.method = pseudo[b":method"].decode("latin-1")
        self.scheme = pseudo.get(b":scheme", b"").decode("latin-1")
        self.authority = pseudo.get(b":authority", b"").decode("latin-1")
        self.path = pseudo.get(b":path", b"").decode("latin-1")
        self.headers = [
            (name.decode("ascii"), value.decode("latin-1"))
            for name, value in join_cookies(fields)
            if not name.startswith(b":")
        ]
        self.body = body
        self.address = address


class Reply(Value):
    """What to answer.

    body      octets, a file open for reading octets (closed afterwards), or an iterator of octets
    headers   (name, value) pairs of text; content-length is added for octets
    """

    __slots__ = ("status", "body", "headers")

    def __init__(
        self,
        status: int = 200,
        body: bytes | BinaryIO | Iterator[bytes] = b"",
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.status = status
        self.body = body
        self.headers = headers


class _Accepted(Value):
    __slots__ = ("sock", "address")

    def __init__(self, sock: socket.socket, address: Address) -> None:
        self.sock = sock
        self.address = address


class _Handshaken(Value):
    __slots__ = ()


class _HandshakeFailed(Value):
    __slots__ = ("reason",)

    def __init__(self, reason: str) -> None:
        self.reason = reason


class _Listener(Source):
    """A listening socket: TCP, or a UNIX socket where the host is a unix: URL."""

    def __init__(self, loop: Loop, host: str, port: int) -> None:
        self._loop = loop
        self._file: _SocketFile | None = None
        if host[:5].lower() == "unix:":
            self._sock, self._file = _unix_socket(host)
        else:
            self._sock = _tcp_socket(host, port)
        self._sock.setblocking(False)
        self.address: Address = self._sock.getsockname()
        try:
            self._sock.listen(BACKLOG)
        except OSError:  # somebody else came first
            self._sock.close()
            raise
        loop.watch(self, self._sock.fileno(), READ)
    def ready(self, mask: int, now: float) -> list[Value]:
        accepted: list[Value] = []
        while len(accepted) < ACCEPTS_A_TURN_MAX:
            try:
                accepted.append(_Accepted(*self._sock.accept()))
            except OSError:  # nobody is left, or the one who came has gone again
                break
        return accepted

    def close(self) -> None:
        self._loop.forget(self, self._sock.fileno())
        if self._file is not None:
            self._file.remove()
        self._sock.close()


def _tcp_socket(host: str, port: int) -> socket.socket:
    """A socket bound to a host and a port."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except UnicodeError as error:
        raise OSError(0, f"not a host name: {error}") from error
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if sys.platform != "win32":
            # There it would let a second server take the port over from a living one.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _unix_socket(url: str) -> tuple[socket.socket, _SocketFile]:
    """A socket bound to the path of a unix: URL, over what a dead server has left there."""
    check_unix_sockets()
    origin, target = parse_url(url)
    path = origin.unix_path
    assert path is not None
    if target != "/":
        raise UsageError(f"cannot listen on {url}: a path, and no request target after it")
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            sock.bind(path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or not _is_left_over(path):
                raise
            os.unlink(path)
            sock.bind(path)
        return sock, _SocketFile(path)
    except OSError:
        sock.close()
        raise


def _is_left_over(path: str) -> bool:
    """A socket on which nobody listens; anything else is not ours to remove."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return False
    except OSError:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a living server's queue may be full
        return probe.connect_ex(path) == errno.ECONNREFUSED


class _SocketFile:
    """The file of a bound UNIX socket, which the system leaves to us to remove."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._stat = os.lstat(path)

    def remove(self) -> None:
        """Remove it, unless it has gone or another server has put its own there."""
        try:
            if os.path.samestat(self._stat, os.lstat(self._path)):
                os.unlink(self._path)
        except OSError:
            return


class _Handshake(Source):
    """A connection whose TLS does not stand yet."""

    def __init__(self, loop: Loop, transport: TLSTransport) -> None:
        self.loop = loop
        self.transport = transport
        loop.watch(self, transport.sock.fileno(), READ)
        loop.set_deadline(self, loop.clock() + HANDSHAKE_TIMEOUT_S)

    def ready(self, mask: int, now: float) -> list[Value]:
        try:
            wanted = self.transport.handshake()
        except TLSError as error:
            return [_HandshakeFailed(str(error))]
        self.loop.watch(self, self.transport.sock.fileno(), wanted)
        return [] if wanted else [_Handshaken()]

    def handle_deadline(self, now: float) -> list[Value]:
        return [_HandshakeFailed(f"TLS handshake not done in {HANDSHAKE_TIMEOUT_S:g} s")]

    def close(self) -> None:
        self.loop.forget(self, self.transport.sock.fileno())
        self.transport.close()


class _Exchange:
    """One request and the reply to it."""

    __slots__ = ("stream", "fields", "chunks", "octets", "body")

    def __init__(self, stream: Stream, fields: Fields) -> None:
        self.stream = stream
        self.fields = fields
        self.chunks: list[bytes] = []
        self.octets = 0
        self.body: Iterator[bytes] | None = None


class Server:
    """Listens from the moment it is made; `serve_forever` runs it.

    handler   Request -> Reply, called in the serving thread; an exception becomes a 500
    host, port, ssl_context   where to listen (port 0: a free one) and, for https, the TLS context;
                              host may be a UNIX socket, "unix:/run/app.sock", without a port: who
                              may connect is then what the umask leaves of the file's mode
    log       called with one line a request and one a failed handshake; None: nobody asks
    clock     seconds as a float, monotonic

    Raises OSError when the address cannot be had, UsageError for one that cannot be.
    """

    def __init__(
        self,
        handler: Callable[[Request], Reply],
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        ssl_context: ssl.SSLContext | None = None,
        log: Callable[[str], None] | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._handler = handler
        self._ssl_context = ssl_context
        self._log = log
        self._loop = Loop(clock)
        self._loop.open_waker()
        self._stopping = False
        self._handshakes: set[_Handshake] = set()
        self._links: dict[Link, dict[int, _Exchange]] = {}
        # Exchanges whose body is still to be pulled from.
        self._streaming: dict[_Exchange, Link] = {}
        try:
            if ssl_context is not None and host[:5].lower() == "unix:":
                raise UsageError("a UNIX socket is served in cleartext: leave out ssl_context")
            self._listener = _Listener(self._loop, host, port)
        except (OSError, UsageError):
            self._loop.close()
            raise
        address = self._listener.address
        self.port: int = address[1] if isinstance(address, tuple) else 0
        self.url = address_text(address)
        if isinstance(address, tuple):
            self.url = f"{'https' if ssl_context else 'http'}://{self.url}"

    def serve_forever(self) -> None:
        """Serve until `stop`, then close everything."""
        try:
            busy = False
            while not self._stopping:
                # What was just pulled may have left already: ask again before waiting.
                for source, event in self._loop.turn(self._loop.clock() if busy else None):
                    self._on_event(source, event)
                busy = self._pull_bodies()
                self._loop.flush()
        finally:
            self._close()

    def stop(self) -> None:
        """Make `serve_forever` return soon; from any thread."""
        self._stopping = True
        self._loop.wake()

    def _close(self) -> None:
        """Say GOAWAY to everybody, and stay until it is read or a peer has had its time."""
        self._listener.close()
        for handshake in self._handshakes:
            handshake.close()
        for link in self._links:
            if not link.connection.closed:
                link.connection.goaway()
            link.finish()
        while self._links:
            self._loop.flush()
            for source, event in self._loop.turn():
                if isinstance(event, ev.ConnectionEnded):
                    self._on_event(source, event)
        self._loop.close()

    # -- events ----------------------------------------------------------------------------

    def _on_event(self, source: Source, event: Value) -> None:
        handler = _ON_EVENT.get(type(event))
        if handler is not None:
            handler(self, source, event)

    def _on_accepted(self, source: Source, event: _Accepted) -> None:
        if len(self._links) + len(self._handshakes) >= CONNECTIONS_MAX:
            event.sock.close()
            return
        try:
            # Who has gone again already is found out here: ssl cannot wrap such a socket.
            event.sock.getpeername()
            prepare(event.sock)
            if self._ssl_context is None:
                self._add_link(Transport(event.sock, event.address))
            else:
                transport = TLSTransport(event.sock, event.address, self._ssl_context)
                self._handshakes.add(_Handshake(self._loop, transport))
        except OSError:
            event.sock.close()

    def _on_handshaken(self, source: _Handshake, event: _Handshaken) -> None:
        self._handshakes.discard(source)
        self._loop.forget(source, source.transport.sock.fileno())
        self._add_link(source.transport)

    def _on_handshake_failed(self, source: _Handshake, event: _HandshakeFailed) -> None:
        self._handshakes.discard(source)
        self._say(f"{address_text(source.transport.address)} {event.reason}")
        source.close()

    def _add_link(self, transport: Transport) -> None:
        self._links[Link(self._loop, transport, Connection(client=False))] = {}

    def _on_request(self, link: Link, event: ev.RequestReceived) -> None:
        stream = link.connection.streams.get(event.stream_id)
        if stream is None:  # reset in the same turn
            return
        exchange = _Exchange(stream, event.fields)
        self._links[link][event.stream_id] = exchange
        if event.end_stream:
            self._reply(link, exchange)

    def _on_data(self, link: Link, event: ev.DataReceived) -> None:
        link.connection.data_consumed(event.stream_id, len(event.data))
        exchange = self._links[link].get(event.stream_id)
        if exchange is None:
            return
        exchange.octets += len(event.data)
        if exchange.octets > REQUEST_OCTETS_MAX:
            reply = Reply(413, b"content over 1 MiB is not taken\n")
            self._answer(link, exchange, reply, _response_fields(reply))
            return
        exchange.chunks.append(bytes(event.data))
        if event.end_stream:
            self._reply(link, exchange)

    def _on_trailers(self, link: Link, event: ev.TrailersReceived) -> None:
        exchange = self._links[link].get(event.stream_id)
        if exchange is not None:
            self._reply(link, exchange)

    def _on_reset(self, link: Link, event: ev.StreamReset) -> None:
        exchange = self._links[link].pop(event.stream_id, None)
        if exchange is not None:
            self._end_exchange(exchange)

    def _on_failed(self, link: Link, event: ev.ConnectionFailed) -> None:
        self._say(f"{address_text(link.transport.address)} {event.reason}")
        link.finish()

    def _on_ended(self, link: Link, event: ev.ConnectionEnded) -> None:
        self._drop(link)

    def _drop(self, link: Link) -> None:
        for exchange in self._links.pop(link, {}).values():
            self._end_exchange(exchange)

    # -- replies ---------------------------------------------------------------------------

    def _reply(self, link: Link, exchange: _Exchange) -> None:
        """The request is complete: ask the handler."""
        if exchange.stream.state == CLOSED:  # reset in the same turn
            return
        request = Request(
            exchange.fields, b"".join(exchange.chunks), address_text(link.transport.address)
        )
        reply = None
        try:
            # RFC 9110 §9.3.6: a tunnel is what CONNECT asks for, and no handler offers one.
            connect = request.method == "CONNECT"
            reply = Reply(501, b"CONNECT is not offered\n") if connect else self._handler(request)
            fields = _response_fields(reply)
        except Exception:  # noqa: BLE001  a handler's fault is reported, and costs one stream
            sys.excepthook(*sys.exc_info())
            _close_body(getattr(reply, "body", None))
            reply = Reply(500, b"the handler failed\n")
            fields = _response_fields(reply)
        self._say(f'{request.address} "{request.method} {request.path}" {reply.status}')
        self._answer(link, exchange, reply, fields, head=request.method == "HEAD")

    def _answer(
        self, link: Link, exchange: _Exchange, reply: Reply, fields: Fields, head: bool = False
    ) -> None:
        connection, stream = link.connection, exchange.stream
        exchange.chunks.clear()
        del self._links[link][stream.stream_id]
        body = reply.body
        empty = head or body == b""
        try:
            connection.send_response(stream, fields, end_stream=empty)
        except UsageError:
            sys.excepthook(*sys.exc_info())
            connection.reset_stream(stream, ErrorCode.INTERNAL_ERROR)
            empty = True
        self._loop.touch(link)
        if empty:
            _close_body(body)
        elif isinstance(body, bytes):
            connection.send_data(stream, body, end_stream=True)
        else:
            exchange.body = _pieces(body)
            self._links[link][stream.stream_id] = exchange
            self._streaming[exchange] = link

    def _pull_bodies(self) -> bool:
        """Queue more of the bodies that run low; True when any was."""
        pulled = False
        for exchange, link in list(self._streaming.items()):
            if exchange.stream.queued_octets < BODY_QUEUED_OCTETS:
                pulled = True
                self._loop.touch(link)
                self._pull(exchange, link)
        return pulled

    def _pull(self, exchange: _Exchange, link: Link) -> None:
        assert exchange.body is not None
        try:
            piece = next(exchange.body, None)
            if piece:
                link.connection.send_data(exchange.stream, piece)
        except Exception:  # noqa: BLE001  as a handler's fault
            sys.excepthook(*sys.exc_info())
            link.connection.reset_stream(exchange.stream, ErrorCode.INTERNAL_ERROR)
            self._forget(exchange, link)
            return
        if piece is None:
            link.connection.send_data(exchange.stream, b"", end_stream=True)
            self._forget(exchange, link)

    def _forget(self, exchange: _Exchange, link: Link) -> None:
        self._links[link].pop(exchange.stream.stream_id, None)
        self._end_exchange(exchange)

    def _end_exchange(self, exchange: _Exchange) -> None:
        self._streaming.pop(exchange, None)
        if exchange.body is not None:
            exchange.body.close()  # type: ignore[attr-defined]  # _pieces made a generator

    def _say(self, line: str) -> None:
        if self._log is not None:
            self._log(line)


_ON_EVENT: dict[type[Value], Callable[[Server, Any, Any], None]] = {
    _Accepted: Server._on_accepted,
    _Handshaken: Server._on_handshaken,
    _HandshakeFailed: Server._on_handshake_failed,
    ev.RequestReceived: Server._on_request,
    ev.DataReceived: Server._on_data,
    ev.TrailersReceived: Server._on_trailers,
    ev.StreamReset: Server._on_reset,
    ev.ConnectionFailed: Server._on_failed,
    ev.ConnectionEnded: Server._on_ended,
}


def _response_fields(reply: Reply) -> Fields:
    """A reply's field section.  Raises what a reply that is none deserves."""
    fields = [(b":status", str(reply.status).encode())]
    for name, value in reply.headers:
        fields.append((name.lower().encode(), value.encode("latin-1")))
    body = reply.body
    if isinstance(body, bytes):
        if all(name != b"content-length" for name, _ in fields):
            fields.append((b"content-length", str(len(body)).encode()))
    elif not hasattr(body, "read") and not hasattr(body, "__next__"):
        raise TypeError(f"a reply's body of {type(body)}, want octets, a file or an iterator")
    return fields


def _pieces(body: BinaryIO | Iterator[bytes]) -> Iterator[bytes]:
    """A file or an iterator as one generator that closes what it read."""
    try:
        if hasattr(body, "read"):
            while piece := body.read(BODY_QUEUED_OCTETS):
                yield piece
        else:
            yield from body
    finally:
        _close_body(body)


def _close_body(body: object) -> None:
    close = getattr(body, "close", None)
    if close is not None:
        close()
