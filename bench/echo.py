"""The other end of the floor: answers every PING with its ack and knows no more of HTTP/2.

    python echo.py PORT [CERTFILE KEYFILE]

Serves 127.0.0.1, over TLS when given a certificate, one thread a connection.  A lone PING, the
case that is measured, is told by its size and type octet; all else is cut into frames by length,
and only SETTINGS and PING are answered.  It ends soon after the process that started it.
"""

from __future__ import annotations

import os
import socket
import ssl
import sys
import threading

RECV_OCTETS = 65536
HANDSHAKE_S_MAX = 5.0
PREFACE_SIZE = 24
HEADER_SIZE = 9
PING_SIZE = 17
SETTINGS_TYPE = 0x4
PING_TYPE = 0x6
SETTINGS = bytes.fromhex("000000 04 00 00000000")
SETTINGS_ACK = bytes.fromhex("000000 04 01 00000000")
PING_ACK_HEADER = bytes.fromhex("000008 06 01 00000000")


def converse(sock: socket.socket) -> None:
    """Answer one client until it goes."""
    sock.sendall(SETTINGS)
    octets = b""
    while len(octets) < PREFACE_SIZE:
        data = sock.recv(RECV_OCTETS)
        if not data:
            return
        octets += data
    octets = octets[PREFACE_SIZE:]
    while True:
        if len(octets) == PING_SIZE and octets[3] == PING_TYPE:
            sock.sendall(PING_ACK_HEADER + octets[HEADER_SIZE:])
            octets = b""
        else:
            octets = answer_frames(sock, octets)
        data = sock.recv(RECV_OCTETS)
        if not data:
            return
        octets += data


def answer_frames(sock: socket.socket, octets: bytes) -> bytes:
    """Answer the whole frames in `octets`; return what is left of an unfinished one."""
    while len(octets) >= HEADER_SIZE:
        end = HEADER_SIZE + int.from_bytes(octets[:3], "big")
        if len(octets) < end:
            break
        type_, acks = octets[3], octets[4] & 1
        if type_ == SETTINGS_TYPE and not acks:
            sock.sendall(SETTINGS_ACK)
        elif type_ == PING_TYPE and not acks:
            sock.sendall(PING_ACK_HEADER + octets[HEADER_SIZE:end])
        octets = octets[end:]
    return octets


def serve(sock: socket.socket, context: ssl.SSLContext | None) -> None:
    """One connection from its handshake to its end, whichever way it ends."""
    try:
        with sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if context is None:
                converse(sock)
                return
            sock.settimeout(HANDSHAKE_S_MAX)
            with context.wrap_socket(sock, server_side=True) as secured:
                secured.settimeout(None)
                converse(secured)
    except OSError as error:
        print(f"connection ended: {error}", file=sys.stderr)


def main(port: int, certificate: list[str]) -> None:
    context = None
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        context.set_alpn_protocols(["h2"])
    parent = os.getppid()
    with socket.create_server(("127.0.0.1", port)) as server:
        server.settimeout(1.0)
        while os.getppid() == parent:
            try:
                sock, _ = server.accept()
            except TimeoutError:
                continue
            threading.Thread(target=serve, args=(sock, context), daemon=True).start()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
