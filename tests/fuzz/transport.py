"""A fake transport: what a connection receives is known beforehand, and what is sent over it is recorded."""

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from unittest.mock import patch


class FakeConnection:
    """As much of a socket as urllib3 uses; `received` counts the bytes that were read from it."""

    def __init__(self, response: Iterable[bytes]) -> None:
        self._response = iter(response)
        self._nothing = os.open(os.devnull, os.O_RDONLY)
        self.sent = b""
        self.received = 0

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def makefile(self, *_: object, **__: object) -> io.BufferedReader:
        return io.BufferedReader(_Incoming(self, self._response))

    def settimeout(self, seconds: float | None) -> None:
        """Accept any timeout: no read waits here."""

    def fileno(self) -> int:
        """Return a file that can always be read: the mark of a connection that was closed at the other end."""
        return self._nothing

    def close(self) -> None:
        os.close(self._nothing)


class _Incoming(io.RawIOBase):
    def __init__(self, connection: FakeConnection, response: Iterator[bytes]) -> None:
        super().__init__()
        self._connection = connection
        self._response = response
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:
        while not self._rest and (piece := next(self._response, None)) is not None:
            self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        self._connection.received += count
        return count


@contextmanager
def responding(response: Iterable[bytes]) -> Iterator[list[FakeConnection]]:
    """Respond to every request with the same bytes, after which the connection ends; yield the connections."""
    connections: list[FakeConnection] = []

    def connect(*_: object, **__: object) -> FakeConnection:
        connections.append(FakeConnection(response))
        return connections[-1]

    with patch("urllib3.util.connection.create_connection", connect):
        yield connections
