"""How much code a reader follows from an event, sent by hand, to the first notification."""

import re
import sys
import threading
from pathlib import Path

import pytest

from agent_log_capture import bootstrap

PACKAGE = str(Path(bootstrap.__file__).parent)
MOST_FUNCTIONS, MOST_FILES = 106, 24


@pytest.fixture
def functions(sns):
    """The functions of the package that run in any thread until the first notification is sent to SNS."""
    called, is_published = set(), threading.Event()

    def trace(frame, event, _):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(PACKAGE) and not is_published.is_set():
            called.add(code)

    sns.meta.events.register("before-call.sns.PublishBatch", lambda **_: is_published.set())
    threading.settrace(trace)
    sys.settrace(trace)
    yield called
    sys.settrace(None)
    threading.settrace(None)


def test_the_path_to_the_first_notification_stays_short(capture_service, wire, functions):
    wire.post(re.compile(".*/logfiles"), status=202, json={"id": "a-log-file"})
    capture_service.run({"agent_id": "one"}, request_id="request-id", remaining_millis=lambda: 300_000)
    # Generators and lambdas are read with the function that they are in.
    named = {code for code in functions if not code.co_name.startswith("<")}
    assert 50 < len(named) <= MOST_FUNCTIONS, len(named)
    assert len({code.co_filename for code in named}) <= MOST_FILES
