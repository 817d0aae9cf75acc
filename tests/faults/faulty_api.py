"""The fake API with faults: responses that are delayed, altered, cut or dropped, and refusals by the server."""

import threading
from collections import defaultdict
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Literal

from local.fake_api import FakeApi, Response, refusal


@dataclass(frozen=True)
class Fault:
    """What goes wrong with the next requests.

    Without a `status` the server acts and responds as usual, as late and as altered as the other fields say. A
    `status` of 300 or more is the response instead of acting, with `message`; a lower one replaces the status of a
    success. `headers` are added, and may hold a wrong `Content-Length`. `drip_seconds` pass before each byte of the
    body, with `drips_head` of the head too. `drop` closes the connection without a response, before or after the
    server acted; `cut_after` closes it after that many bytes of the response.
    """

    status: int | None = None
    message: str | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | None = None
    delay_seconds: float = 0
    drip_seconds: float | None = None
    drips_head: bool = False
    cut_after: int | None = None
    drop: Literal["before", "after"] | None = None
    times: int = 1
    method: str | None = None


NO_FAULT = Fault()


class FaultyApi(FakeApi):
    """The fake API, with injected faults, or those that `faults` draws: a function from a request to a fault or None.

    Delays and drips are real time. They end with the `with` block, or when `hurry` is called. `most_at_once` is the
    largest number of concurrent requests.
    """

    def __init__(self, *, faults=None, **options):
        super().__init__(**options)
        self.faults = faults
        self.most_at_once = 0
        self._at_once = 0
        self._injected = defaultdict(list)
        self._hurried = threading.Event()
        self._unserved = 0
        self._served = threading.Condition()

    def __exit__(self, *error):
        self._stopped.set()
        self.hurry()
        super().__exit__(*error)

    def inject(self, target, fault):
        """Queue a fault for the next `fault.times` requests with this target: see `Request.target`."""
        with self._lock:
            self._injected[target].append(fault)

    def hurry(self):
        """End all delays and drips, also those of requests that are being served."""
        self._hurried.set()

    def wait_until_served(self, timeout_seconds):
        """Wait until the server has acted on every request, also where the client has gone; return whether it has."""
        with self._served:
            return self._served.wait_for(lambda: not self._unserved, timeout_seconds)

    def exchange(self, request):
        fault = self._take_fault(request)
        with self._served:
            self._unserved += 1
        try:
            self._wait(fault.delay_seconds)
            response = self._respond(request, fault)
        finally:
            with self._served:
                self._unserved -= 1
                self._served.notify_all()
        if fault.drop:
            raise ConnectionAbortedError
        yield from self._write(response, fault)

    def serve(self, request):
        with self._lock:
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            return super().serve(request)
        finally:
            with self._lock:
                self._at_once -= 1

    def _take_fault(self, request):
        with self._lock:
            queue = self._injected[request.target]
            for place, fault in enumerate(queue):
                if fault.method in (None, request.method):
                    left = replace(fault, times=fault.times - 1)
                    queue[place : place + 1] = [left] if left.times > 0 else []
                    return fault
        return (self.faults and self.faults(request)) or NO_FAULT

    def _respond(self, request, fault):
        if fault.drop == "before" or (fault.status or 0) >= HTTPStatus.MULTIPLE_CHOICES:
            self.count(request)
            response = refusal(request, fault.status or HTTPStatus.SERVICE_UNAVAILABLE, fault.message)
        else:
            response = self.serve(request)
        return Response(
            # A refusal is never turned into a success: the server has created nothing.
            status=fault.status if fault.status and response.status < HTTPStatus.BAD_REQUEST else response.status,
            content=response.content if fault.body is None or request.method == "HEAD" else fault.body,
            headers={**response.headers, **fault.headers},
        )

    def _write(self, response, fault):
        first, rest = (b"", response.head + response.body) if fault.drips_head else (response.head, response.body)
        if fault.drip_seconds is None:
            first, rest = first + rest, b""
        yield first[: fault.cut_after]
        for byte in rest[: fault.cut_after]:
            self._wait(fault.drip_seconds)
            yield bytes([byte])
        if fault.cut_after is not None:
            raise ConnectionAbortedError

    def _wait(self, seconds):
        self._hurried.wait(seconds)
        if self._stopped.is_set():
            raise ConnectionAbortedError
