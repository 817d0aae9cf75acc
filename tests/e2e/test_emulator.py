"""What the other tests build on: the emulator starts, ends and reports as Lambda does."""

import sys
import tempfile
from pathlib import Path

import pytest

from local.emulator import Emulator, FunctionError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="AWS's emulator is a Linux program")

FUNCTION = """
import os, time

def lambda_handler(event, context):
    if event == "error":
        raise ValueError("it is broken")
    if event == "sleep":
        time.sleep(60)
    if event == "exit":
        os._exit(3)
    if event == "import":
        import boto3
    return os.getpid()
"""
LISTENS = "0A"
LOOPBACK = "0100007F"


@pytest.fixture
def emulator(tmp_path):
    (tmp_path / "function.py").write_text(FUNCTION, encoding="utf-8")
    with Emulator(artifact=tmp_path, handler="function.lambda_handler", timeout_seconds=1) as emulator:
        yield emulator


def test_one_instance_serves_one_event_after_the_other(emulator):
    assert emulator.invoke(1) == emulator.invoke(2)
    assert len(emulator.init_milliseconds) == 1


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ("error", "ValueError: it is broken"),
        ("sleep", "Task timed out after 1.00 seconds"),
        ("exit", "Runtime.ExitError: .+ exit status 3"),
        ("import", "Runtime.ImportModuleError: .+|ModuleNotFoundError: No module named 'boto3'"),
    ],
)
def test_a_function_that_fails_raises_an_error_with_the_reason(emulator, event, message):
    with pytest.raises(FunctionError, match=f"^({message})"):
        emulator.invoke(event)


def test_after_a_kill_the_next_event_starts_a_new_instance(emulator):
    killed = emulator.invoke("which")
    with pytest.raises(FunctionError):
        emulator.invoke("sleep")
    assert emulator.invoke("which") != killed
    assert len(emulator.init_milliseconds) == 2


def test_a_restart_is_a_cold_start(emulator):
    before = emulator.invoke("which")
    emulator.restart()
    assert emulator.invoke("which") != before
    assert len(emulator.init_milliseconds) == 1
    assert 1 < emulator.init_milliseconds[0] < 10_000


def test_a_handler_that_is_not_there_is_an_error(tmp_path):
    with (
        Emulator(artifact=tmp_path, handler="nothing.lambda_handler") as emulator,
        pytest.raises(FunctionError, match="No module named 'nothing'"),
    ):
        emulator.invoke({})


def test_it_listens_on_the_loopback_alone(emulator):
    emulator.invoke("which")
    addresses = listening_addresses(emulator.process.pid)
    assert len(addresses) == 2
    assert set(addresses) == {LOOPBACK}


def listening_addresses(process_id):
    """The addresses on which a process listens, as the kernel writes them."""
    process = Path(f"/proc/{process_id}")
    sockets = {str(file.readlink()) for file in (process / "fd").iterdir()}
    lines = [line.split() for name in ("tcp", "tcp6") for line in (process / "net" / name).read_text().splitlines()]
    return [
        fields[1].split(":")[0] for fields in lines if fields[3] == LISTENS and f"socket:[{fields[9]}]" in sockets
    ]


def test_nothing_is_left_of_it(tmp_path, monkeypatch):
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    (tmp_path / "function.py").write_text(FUNCTION, encoding="utf-8")
    with Emulator(artifact=tmp_path, handler="function.lambda_handler") as emulator:
        processes = [emulator.process.pid, emulator.invoke("which")]
        assert list(temporary.iterdir())
    assert not [process for process in processes if Path(f"/proc/{process}").exists()]
    assert not list(temporary.iterdir())
