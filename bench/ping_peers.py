"""The peers among the PING benches' clients; all but Go need the peers' environment.

    h2            the h2 library on a bare socket by selectors
    h2, asyncio   the h2 library under an asyncio protocol, one future a PING
    jh2           as h2, with the jh2 library
    go            net/http's ClientConn, method ":ping": go/pinger.go, which keeps its own time
"""

from __future__ import annotations

import asyncio
import subprocess
import time
from importlib import import_module
from typing import Any

from tests.peers.servers import HOST, STOP_S_MAX

from .ping_clients import BareClient, opaque_values
from .ping_servers import Target

H2, H2_ASYNCIO, JH2, GO = "h2", "h2, asyncio", "jh2", "go"


class H2Client(BareClient):
    """The library is told of every octet."""

    LIBRARY = "h2"

    def __init__(self, target: Target) -> None:
        self._connection, self._acked = h2_connection(self.LIBRARY)
        super().__init__(target)
        self._sock.setblocking(False)
        self._values = opaque_values()
        self._sent = b""
        self.ping()

    def ping(self) -> Any:
        connection = self._connection
        self._sent = value = next(self._values)
        connection.ping(value)
        while True:
            data = self._exchange(connection.data_to_send())
            for event in connection.receive_data(data):
                if isinstance(event, self._acked):
                    return event.ping_data

    def holds(self, answer: bytes) -> bool:
        return answer == self._sent


class Jh2Client(H2Client):
    LIBRARY = "jh2"


def h2_connection(library: str) -> tuple[Any, type[Any]]:
    """A client connection of h2 or jh2, its preface queued, and the event of a PING's ack."""
    connection = import_module(f"{library}.connection")
    config = import_module(f"{library}.config").H2Configuration(client_side=True)
    made = connection.H2Connection(config)
    made.initiate_connection()
    return made, import_module(f"{library}.events").PingAckReceived


class H2Protocol(asyncio.Protocol):
    """h2 under asyncio: what comes is told to the library, a PING's ack to its future."""

    def __init__(self) -> None:
        self.connection, self._acked = h2_connection("h2")
        self._transport: asyncio.Transport | None = None
        self._future: asyncio.Future[bytes] | None = None
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.write(self.connection.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self.connection.receive_data(data):
            if isinstance(event, self._acked) and self._future is not None:
                self._future.set_result(event.ping_data)
        self._flush()

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set()
        if self._future is not None and not self._future.done():
            self._future.set_exception(error or ConnectionError("the server closed"))

    async def ping(self, value: bytes) -> bytes:
        self._future = asyncio.get_running_loop().create_future()
        self.connection.ping(value)
        self._flush()
        return await self._future

    def _flush(self) -> None:
        assert self._transport is not None
        octets = self.connection.data_to_send()
        if octets:
            self._transport.write(octets)


class H2AsyncioClient:
    """Times are taken inside the event loop, as its user would: starting it is not timed."""

    def __init__(self, target: Target) -> None:
        self._values = opaque_values()
        protocol = H2Protocol()
        self._loop = asyncio.new_event_loop()
        sock, context = target.dial(), target.context
        host = None if context is None else HOST
        connecting = self._loop.create_connection(
            lambda: protocol, sock=sock, ssl=context, server_hostname=host
        )
        self._transport, self._protocol = self._loop.run_until_complete(connecting)

    def samples(self, calls: int) -> list[float]:
        return self._loop.run_until_complete(asyncio.wait_for(self._pings(calls), 60.0))

    async def _pings(self, calls: int) -> list[float]:
        clock, ping, values = time.perf_counter_ns, self._protocol.ping, self._values
        times: list[float] = []
        for _ in range(calls):
            begun = clock()
            value = next(values)
            answer = await ping(value)
            ended = clock()
            if answer != value:
                raise AssertionError(f"{H2_ASYNCIO} gave {answer!r} for {value!r}")
            times.append(ended - begun)
        return times

    def close(self) -> None:
        self._transport.abort()  # under TLS, `close` would wait for the server
        self._loop.run_until_complete(self._protocol.lost.wait())
        self._loop.close()


class GoPinger:
    """go/pinger.go at work: asked for a number of PINGs, it tells how long each took.

    program   what was built of it
    load      what goes on beside the PINGs: none, upload or download
    rates     octets a second of that, one a turn
    """

    def __init__(self, program: str, target: Target, load: str = "none") -> None:
        argv = [program, "-url", target.url, "-load", load]
        if target.cafile is not None:
            argv += ["-cacert", target.cafile]
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.rates: list[float] = []

    def samples(self, calls: int) -> list[float]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(calls, file=self._process.stdin, flush=True)
        rate, *times = [float(one) for one in self._process.stdout.readline().split()] or [0.0]
        if len(times) != calls:
            raise AssertionError(f"{GO} gave {len(times)} times of {calls}")
        self.rates.append(rate)
        return times

    def close(self) -> None:
        """At the end of its input it ends."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(STOP_S_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
