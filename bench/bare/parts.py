"""The capture function, which tells how long each part of its cold start took; ARTIFACT is where it is packed."""

import os
import sys
import time
from collections.abc import Callable
from typing import Any

_parts: dict[str, float] = {}


def _timed[R](part: str, step: Callable[..., R]) -> Callable[..., R]:
    """Add what `step` takes to a part, in milliseconds."""

    def timed(*args: Any, **kwargs: Any) -> R:
        began = time.perf_counter()
        try:
            return step(*args, **kwargs)
        finally:
            _parts[part] = _parts.get(part, 0) + 1000 * (time.perf_counter() - began)

    return timed


def _start() -> None:
    sys.path.insert(0, os.environ["ARTIFACT"])
    __import__("agent_log_capture.handlers")  # as on Lambda, where a handler is what is imported
    bootstrap = _timed("imports", lambda: __import__("agent_log_capture.bootstrap").bootstrap)()
    session = bootstrap.boto3.session.Session
    session.client = _timed("clients", session.client)
    http_session = sys.modules["agent_log_capture.adapters.http_session"]
    http_session._tls_context = _timed("tls", http_session._tls_context)  # type: ignore[attr-defined]  # noqa: SLF001
    # Its own import builds the function, as on Lambda.
    _timed("rest", lambda: __import__("agent_log_capture.handlers.capture"))()
    _parts["rest"] -= _parts["clients"] + _parts["tls"]


_start()


def lambda_handler(event: object, context: object) -> dict[str, float]:
    """Return the milliseconds of each part."""
    return _parts
