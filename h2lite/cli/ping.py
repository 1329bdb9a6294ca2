"""`h2lite ping`: PING frames on one connection, reported as ping(8) reports packets."""

from __future__ import annotations

import json
import math
import time

from ..client import PooledConnection, connect
from ..errors import ConnectionLost, H2liteError, PingTimeout, RemoteProtocolError
from ..health import HealthPolicy
from . import DONE, LOSS, check_output, complain, describe, exit_code

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse


def run(options: argparse.Namespace) -> int:
    """Ping until the count is reached, the connection is lost or Ctrl-C; then sum up."""
    check_output()
    with connect(
        options.url,
        health=HealthPolicy(ping_after_idle=0),  # only the PINGs that were asked for
        verify=not options.insecure,
        cafile=options.cacert,
    ) as connection:
        report: _TextReport | _JsonReport
        report = _JsonReport(options) if options.json else _TextReport(options)
        report.begin(connection)
        tally = Tally()
        began = time.monotonic()
        fault: H2liteError | None = None
        try:
            _ping_all(connection, options, tally, report)
        except KeyboardInterrupt:
            pass  # how one ends a ping without a count
        except (ConnectionLost, RemoteProtocolError) as error:
            fault = error
        report.end(tally, time.monotonic() - began)
    if fault is not None:
        complain(f"h2lite: {describe(fault)}")
        return _code_of_loss(fault)
    return DONE if tally.acked == tally.sent else LOSS


def _code_of_loss(fault: H2liteError) -> int:
    """A connection that merely ended is loss; one that ended with an error code says so."""
    if isinstance(fault, ConnectionLost) and not fault.error_code:
        return LOSS
    return exit_code(fault)


def _ping_all(
    connection: PooledConnection,
    options: argparse.Namespace,
    tally: Tally,
    report: _TextReport | _JsonReport,
) -> None:
    due = time.monotonic()
    while options.count is None or tally.sent < options.count:
        if tally.sent:
            due += options.interval
            # Behind schedule (an ack took longer than the interval): start afresh, no burst.
            due = max(due, time.monotonic())
            connection.watch(due - time.monotonic())
        tally.sent += 1
        try:
            rtt = connection.ping(timeout=options.patience).rtt
            assert rtt is not None
        except PingTimeout:
            report.lost(tally.sent, options.patience)
        else:
            tally.add(rtt)
            report.reply(tally.sent, rtt)


class Tally:
    """Counts, and the sums that mean and deviation need."""

    def __init__(self) -> None:
        self.sent = 0
        self.acked = 0
        self.low = float("inf")
        self.high = 0.0
        self._sum = 0.0
        self._squares = 0.0

    def add(self, rtt: float) -> None:
        self.acked += 1
        self.low = min(self.low, rtt)
        self.high = max(self.high, rtt)
        self._sum += rtt
        self._squares += rtt * rtt

    @property
    def mean(self) -> float:
        return self._sum / self.acked

    @property
    def deviation(self) -> float:
        """The standard deviation, which ping(8) calls mdev; rounding may make it 0, never less."""
        return math.sqrt(max(0.0, self._squares / self.acked - self.mean**2))

    @property
    def loss_percent(self) -> float:
        return 100.0 * (self.sent - self.acked) / self.sent if self.sent else 0.0


class _TextReport:
    """A header, a line a reply, and the two lines of a summary."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._quiet = options.quiet
        self._url = options.url
        self._address = ""

    def begin(self, connection: PooledConnection) -> None:
        self._address = connection.address
        over = f"h2, {connection.tls_version}" if connection.tls_version else "h2c"
        _say(f"PING {self._url} ({self._address}) over {over}: 8 octets of data")

    def reply(self, seq: int, rtt: float) -> None:
        if not self._quiet:
            _say(f"8 octets from {self._address}: seq={seq} rtt={rtt * 1e3:.3f} ms")

    def lost(self, seq: int, patience: float) -> None:
        if not self._quiet:
            _say(f"no ack from {self._address}: seq={seq} within {patience:g} s")

    def end(self, tally: Tally, seconds: float) -> None:
        _say(f"--- {self._url} ping statistics ---")
        _say(
            f"{tally.sent} sent, {tally.acked} acknowledged, {tally.loss_percent:.4g}% loss, "
            f"time {seconds * 1e3:.0f} ms"
        )
        if tally.acked:
            figures = (tally.low, tally.mean, tally.high, tally.deviation)
            text = "/".join(f"{seconds * 1e3:.3f}" for seconds in figures)
            _say(f"rtt min/avg/max/mdev = {text} ms")


class _JsonReport:
    """One JSON object a line, times in seconds: connected, then replies, then the summary."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._quiet = options.quiet
        self._url = options.url

    def begin(self, connection: PooledConnection) -> None:
        _say_json(
            event="connected",
            url=self._url,
            address=connection.address,
            protocol=connection.protocol,
            tls_version=connection.tls_version,
        )

    def reply(self, seq: int, rtt: float) -> None:
        if not self._quiet:
            _say_json(event="ack", seq=seq, rtt=rtt)

    def lost(self, seq: int, patience: float) -> None:
        if not self._quiet:
            _say_json(event="lost", seq=seq, waited=patience)

    def end(self, tally: Tally, seconds: float) -> None:
        times = {}
        if tally.acked:
            times = {
                "rtt_min": tally.low,
                "rtt_avg": tally.mean,
                "rtt_max": tally.high,
                "rtt_mdev": tally.deviation,
            }
        _say_json(
            event="summary",
            sent=tally.sent,
            acknowledged=tally.acked,
            loss_percent=tally.loss_percent,
            seconds=seconds,
            **times,
        )


def _say(line: str) -> None:
    # Flushed, so that whoever reads through a pipe sees each reply when it comes.
    print(line, flush=True)


def _say_json(**members: object) -> None:
    _say(json.dumps(members))
