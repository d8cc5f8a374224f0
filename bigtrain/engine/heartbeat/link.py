"""Short messages between two ranks over a connection of their own: JSON, a line each, never waited for.

The kernel closes a connection with its process, so that the end of a rank is known at once, which neither a store that
is polled nor NCCL tells. Nothing that is received is ever run.
"""

import contextlib
import json
import socket
from typing import Any

CONNECT_S = 30.0
SEND_S = 1.0  # messages are small, and nobody waits for a peer that has stopped reading
CHUNK_BYTES = 65_536
MOST_UNREAD_BYTES = 1 << 20  # of one line: more is no message of ours

Message = dict[str, Any]


class Link:
    """One end of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(SEND_S)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = connection
        self._unread = b""

    @classmethod
    def to(cls, host: str, port: int) -> "Link":
        """Connect.

        Raises:
            OSError: nobody listens there, or the network does not let us through.
        """
        return cls(socket.create_connection((host, port), timeout=CONNECT_S))

    def send(self, message: Message) -> None:
        """Send if the other end is there; whether it is shows when it is read from."""
        with contextlib.suppress(OSError):
            self.connection.sendall((json.dumps(message) + "\n").encode())

    def receive(self) -> tuple[list[Message], bool]:
        """Return the whole messages that have come, and whether the other end is still there.

        Call it when the connection is readable.
        """
        try:
            chunk = self.connection.recv(CHUNK_BYTES)
        except TimeoutError:
            return [], True
        except OSError:  # reset: the process was killed with something unread
            return [], False
        *lines, self._unread = (self._unread + chunk).split(b"\n")
        is_there = bool(chunk) and len(self._unread) < MOST_UNREAD_BYTES
        try:
            return [dict(json.loads(line)) for line in lines], is_there
        except (ValueError, TypeError, RecursionError):  # a stranger
            return [], False

    def close(self) -> None:
        """Close this end."""
        self.connection.close()


def listen() -> socket.socket:
    """Return a socket that listens on a free port of all addresses of this host."""
    if socket.has_dualstack_ipv6():
        return socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True, backlog=4096)
    return socket.create_server(("", 0), backlog=4096)
