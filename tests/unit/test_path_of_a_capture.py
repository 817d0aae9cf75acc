"""How much code a reader has to follow from an event to its first notification."""

import sys
import threading
from pathlib import Path

import pytest

PACKAGE = str(Path(__file__).parents[2] / "src" / "agent_log_capture")


@pytest.fixture
def called():
    """The functions of the package that run in any thread, as pairs of file and name."""
    codes = set()

    def trace(frame, event, _):
        if event == "call" and frame.f_code.co_filename.startswith(PACKAGE):
            codes.add(frame.f_code)

    yield codes, trace


def test_zz(invoke, called):
    codes, trace = called
    threading.settrace(trace)
    sys.settrace(trace)
    try:
        invoke({"agent_id": "one"})
    finally:
        sys.settrace(None)
        threading.settrace(None)
    names = sorted((Path(c.co_filename).relative_to(PACKAGE).as_posix(), c.co_qualname) for c in codes)
    from collections import Counter

    print(len(names), len({f for f, _ in names}))
    for f, n in Counter(f for f, _ in names).items():
        print(n, f)
    real = [n for n in names if "<" not in n[1].rsplit(".", 1)[-1]]
    print("without genexprs/lambdas", len(real))
    print(*names, sep="\n")
    assert 0
