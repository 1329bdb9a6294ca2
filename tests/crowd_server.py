"""A server that costs little: every PING has its ack, every request the same response.

    python crowd_server.py [PORT]

Serves all addresses of this machine, on one thread, as many connections as there may be
descriptors; prints its port when it listens, and ends when its standard input does.  It knows no
more of HTTP/2 than that: a field block is not read, no window is kept (a client gives them back
long before three octets a response have used them up), and a request has one HEADERS frame.
"""

from __future__ import annotations

import selectors
import socket
import sys

RECV_OCTETS = 65536
PREFACE_SIZE = 24
HEADER_SIZE = 9
DATA, HEADERS, SETTINGS, PING = 0x0, 0x1, 0x4, 0x6
END_STREAM = ACK = 0x1
PREFACE = bytes.fromhex("000000 04 00 00000000")  # SETTINGS of nothing
SETTINGS_ACK = bytes.fromhex("000000 04 01 00000000")
PING_ACK_HEADER = bytes.fromhex("000008 06 01 00000000")
# :status 200 and content-length 3, of the static table; then DATA with END_STREAM.
RESPONSE_HEADERS = bytes.fromhex("000005 01 04")
FIELD_BLOCK = bytes.fromhex("88 0f0d 01 33")
RESPONSE_DATA = bytes.fromhex("000003 00 01")
CONTENT = b"ok\n"


class Conversation:
    """One client: what it has begun to send, and what it has not taken yet."""

    __slots__ = ("sock", "held", "unsent", "begun")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.held = b""
        self.unsent = PREFACE
        self.begun = False

    def understand(self, data: bytes) -> None:
        """Answer the whole frames that have come; `unsent` has the answers then."""
        octets = self.held + data if self.held else data
        at, end = 0, len(octets)
        if not self.begun:
            if end < PREFACE_SIZE:
                self.held = octets
                return
            self.begun = True
            at = PREFACE_SIZE
        answers = []
        while end - at >= HEADER_SIZE:
            payload = at + HEADER_SIZE
            after = payload + (octets[at] << 16 | octets[at + 1] << 8 | octets[at + 2])
            if after > end:
                break
            kind, flags = octets[at + 3], octets[at + 4]
            if kind == PING and not flags & ACK:
                answers.append(PING_ACK_HEADER + octets[payload:after])
            elif kind in (DATA, HEADERS) and flags & END_STREAM:
                stream_id = octets[at + 5 : payload]
                answers.append(RESPONSE_HEADERS + stream_id + FIELD_BLOCK)
                answers.append(RESPONSE_DATA + stream_id + CONTENT)
            elif kind == SETTINGS and not flags & ACK:
                answers.append(SETTINGS_ACK)
            at = after
        self.held = octets[at:]
        self.unsent += b"".join(answers)

    def flush(self) -> None:
        if self.unsent:
            try:
                self.unsent = self.unsent[self.sock.send(self.unsent) :]
            except BlockingIOError:
                return


def serve(listener: socket.socket) -> None:
    """Until standard input ends."""
    selector = selectors.DefaultSelector()
    selector.register(listener, selectors.EVENT_READ)
    selector.register(sys.stdin, selectors.EVENT_READ)
    while True:
        for key, mask in selector.select():
            client = key.data
            if client is None:
                if key.fileobj is not listener:
                    return
                sock, _ = listener.accept()
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client = Conversation(sock)
                selector.register(sock, selectors.EVENT_READ, client)
                client.flush()
                continue
            try:
                if mask & selectors.EVENT_READ:
                    data = client.sock.recv(RECV_OCTETS)
                    if not data:
                        raise ConnectionResetError
                    client.understand(data)
                client.flush()
            except BlockingIOError:
                continue
            except OSError:
                selector.unregister(client.sock)
                client.sock.close()
                continue
            # Answers that a client does not take are the only reason to look for room.
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if client.unsent else 0)
            if wanted != key.events:
                selector.modify(client.sock, wanted, client)


def main(port: int) -> None:
    with socket.create_server(("", port), backlog=4096) as listener:
        print(listener.getsockname()[1], flush=True)
        serve(listener)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
