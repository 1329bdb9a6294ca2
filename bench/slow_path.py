"""A path that is slower than both its ends: what a client sends is passed on at a fixed rate.

    python slow_path.py PORT SERVER_PORT OCTETS_A_SECOND

Listens on 127.0.0.1 and connects to the server there.  It takes no more in advance than a router
might hold, so what cannot leave stays queued at the client.  The way back is not slowed.  It ends
soon after the process that started it.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time

PIECE_OCTETS = 16 * 1024
# Given to the kernel, which takes twice as much; set before listening, for the window to obey it.
RECEIVE_QUEUE_OCTETS = 64 * 1024


def copy(source: socket.socket, sink: socket.socket, rate: float | None) -> None:
    """Pass on what comes until one side ends, then end both."""
    due = time.monotonic()
    try:
        while data := source.recv(PIECE_OCTETS):
            sink.sendall(data)
            if rate is None:
                continue
            # From the instant that it was due: a sleep that lasts too long is made up for,
            # but not a time in which nothing came.
            due = max(due, time.monotonic() - 0.01) + len(data) / rate
            pause = due - time.monotonic()
            if pause > 0:
                time.sleep(pause)
    except OSError:
        pass  # whichever side has reset the connection, the other is told below
    for sock in (source, sink):
        try:
            sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            continue


def join(client: socket.socket, server_port: int, rate: float) -> None:
    """One connection from its accept to its end."""
    with client, socket.create_connection(("127.0.0.1", server_port)) as server:
        for sock in (client, server):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        back = threading.Thread(target=copy, args=(server, client, None), daemon=True)
        back.start()
        copy(client, server, rate)
        back.join()


def main(port: int, server_port: int, rate: float) -> None:
    parent = os.getppid()
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_QUEUE_OCTETS)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        listener.settimeout(1.0)
        while os.getppid() == parent:
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            threading.Thread(target=join, args=(client, server_port, rate), daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
