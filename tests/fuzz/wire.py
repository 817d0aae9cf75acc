"""A wire that leads nowhere: what comes back on it is told beforehand, and what is sent is noted."""

import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from unittest.mock import patch


class Wire:
    """As much of a socket as urllib3 uses; `received` counts the bytes that were taken off it."""

    def __init__(self, answer: Iterable[bytes]) -> None:
        self._answer = iter(answer)
        self._nothing = os.open(os.devnull, os.O_RDONLY)
        self.sent = b""
        self.received = 0

    def sendall(self, data: bytes) -> None:
        self.sent += data

    def makefile(self, *_: object, **__: object) -> io.BufferedReader:
        return io.BufferedReader(_Incoming(self, self._answer))

    def settimeout(self, seconds: float | None) -> None:
        """Take any timeout: nothing is waited for here."""

    def fileno(self) -> int:
        """Return a file that can always be read: the mark of a connection that was closed at the other end."""
        return self._nothing

    def close(self) -> None:
        os.close(self._nothing)


class _Incoming(io.RawIOBase):
    def __init__(self, wire: Wire, answer: Iterator[bytes]) -> None:
        super().__init__()
        self._wire = wire
        self._answer = answer
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:
        while not self._rest and (piece := next(self._answer, None)) is not None:
            self._rest = memoryview(piece)
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        self._wire.received += count
        return count


@contextmanager
def answering(answer: Iterable[bytes]) -> Iterator[list[Wire]]:
    """ApiResponse every request with the same bytes, after which the connection ends; yield the connections."""
    wires: list[Wire] = []

    def connect(*_: object, **__: object) -> Wire:
        wires.append(Wire(answer))
        return wires[-1]

    with patch("urllib3.util.connection.create_connection", connect):
        yield wires
