"""What `make demo` shows: on a terminal, through a pipe, and for an event of one's own."""

import json
import os
import re
import stat
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from local import dashboard, demo

EVENTS = demo.ROOT / "events"
# Python's own pty runs the command on a pseudo-terminal, and passes on what is typed and what is shown.
TERMINAL = """
import os, pty, sys
code = os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:]))
sys.exit(code if code >= 0 else 128 - code)  # a signal, as a shell says it
"""
CTRL_C = b"\x03"
METRIC = '"_aws"'
HEIGHT, WIDTH = 24, 80


def start_demo(folder, *, on_terminal, **environment):
    """Start the demo, which writes its log into `folder`."""
    folder.mkdir(exist_ok=True)
    source = os.pathsep.join((str(demo.ROOT), str(demo.ROOT / "src")))
    wrapper = [sys.executable, "-c", TERMINAL] if on_terminal else []
    return subprocess.Popen(
        [*wrapper, sys.executable, "-m", "local.demo"],
        cwd=folder,
        env=os.environ
        | {"PYTHONPATH": source, "TERM": "xterm", "LINES": str(HEIGHT), "COLUMNS": str(WIDTH)}
        | environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


@contextmanager
def ended_in_any_case(process):
    with process:
        try:
            yield
        finally:
            process.kill()


def finish(process, folder):
    with ended_in_any_case(process):
        shown, _ = process.communicate(timeout=120)
    log = (folder / "demo.log").read_text(encoding="utf-8")
    return SimpleNamespace(code=process.returncode, shown=shown.decode(), log=log)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The whole demo, on a terminal of 80 x 24 and through a pipe."""
    folder = tmp_path_factory.mktemp("runs")
    started = {
        name: start_demo(folder / name, on_terminal=name == "terminal", EVENT="") for name in ("terminal", "pipe")
    }
    return SimpleNamespace(**{name: finish(process, folder / name) for name, process in started.items()})


def lines_on_screen(shown):
    """What a terminal shows in the end, with all that has scrolled off it, to which the cursor cannot go back."""
    lines, row, column = [""], 0, 0
    for control, text in re.findall(r"(\x1b\[[?\d;]*[A-Za-z]|[\r\n])|([^\x1b\r\n]+)", shown):
        if text:
            lines[row] = lines[row][:column].ljust(column) + text + lines[row][column + len(text) :]
            column += len(text)
        elif control == "\r":
            column = 0
        elif control == "\n":
            row += 1
            lines += [""] * (row == len(lines))
        elif control.endswith("A"):
            row = max(row - int(control[2:-1]), len(lines) - HEIGHT, 0)
        elif control == "\x1b[2K":
            lines[row] = ""
    return [line.rstrip() for line in lines]


def table(lines):
    """The rows of the table that is printed at the end, by when, whom, for what, and what became of it."""
    [heading] = [number for number, line in enumerate(lines) if line.startswith("after ")]
    return [re.split(r" {2,}", line, maxsplit=3) for line in lines[heading + 1 : lines.index("", heading)]]


def test_on_a_small_terminal_the_table_is_shown_once_and_fits(runs):
    assert runs.terminal.code == 0
    lines = lines_on_screen(runs.terminal.shown)
    rows = table(lines)
    assert len(rows) == len(table(runs.pipe.shown.splitlines()))
    assert {len(row) for row in rows} == {4}
    assert max(map(len, lines[: lines.index("")])) <= WIDTH
    assert any(line.endswith("expired: not uploaded") for line in lines)


def test_while_the_demo_runs_a_small_terminal_shows_what_has_changed_and_how_many_are_where(runs):
    assert "\x1b[1A" in runs.terminal.shown
    assert re.search(r"Captures: .*\d+ requested.*, of 29", runs.terminal.shown)


def test_metrics_go_to_the_log_and_never_over_the_table(runs):
    for run in (runs.terminal, runs.pipe):
        assert METRIC not in run.shown
        assert METRIC in run.log


def test_the_dashboard_that_is_drawn_on_a_terminal_is_the_one_that_is_drawn_through_a_pipe(runs):
    def titles(log):
        samples = dashboard.read(log.splitlines(), demo.TIME_FACTOR)
        return [widget.title for widget in dashboard.widgets(dashboard.body(), samples)]

    assert titles(runs.terminal.log) == titles(runs.pipe.log) != []


def test_through_a_pipe_everything_is_plain_and_nothing_is_cut(runs):
    assert runs.pipe.code == 0
    assert not set("\x1b…") & set(runs.pipe.shown)
    rows = table(runs.pipe.shown.splitlines())
    assert "4ce1e131-ee75-4ec5-ac6f-7491091f2705" in [agent for _, agent, *_ in rows]
    assert [status.strip() for *_, trigger, status in rows if trigger.startswith("backup-")] == [
        "duplicate: cool down"
    ]


@pytest.mark.parametrize(("seen", "typed"), [(b"embedded cloud", 1), (b"requested", 1), (b"requested", 3)])
def test_ctrl_c_ends_the_demo_quietly_with_130_and_leaves_nothing_running(tmp_path, seen, typed):
    process = start_demo(tmp_path, on_terminal=True)
    with ended_in_any_case(process):
        shown = b""
        while seen not in shown:
            shown += process.stdout.read1() or pytest.fail(f"ended with {shown}")
        process.stdin.write(typed * CTRL_C)
        process.stdin.flush()
        shown += process.communicate(timeout=60)[0]
    assert process.returncode == 130
    assert "Traceback" not in shown.decode()
    # The cursor is back, where there was time for that.
    assert typed > 1 or shown.count(b"\x1b[?25l") == shown.count(b"\x1b[?25h")
    assert not [link for link in Path("/proc").glob("[0-9]*/cwd") if is_in(link, tmp_path)]


def is_in(link, folder):
    try:
        return link.readlink() == folder
    except OSError:  # the process has just ended, or belongs to another user
        return False


# ------------------------------------------------------------------ an event of one's own


@pytest.fixture
def send(tmp_path, monkeypatch, capsys):
    """Runs the demo with a file that holds this; returns its exit code and all that it printed."""
    monkeypatch.chdir(tmp_path)

    def run(content, name="event.json"):
        Path(name).write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
        code = demo.main(name)
        captured = capsys.readouterr()
        return code, captured.out + captured.err

    return run


@pytest.fixture
def sample():
    return lambda name: json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))


def test_every_agent_of_an_event_of_ones_own_has_a_final_status(send, sample):
    code, said = send(sample("sqs-list"), name="my list.json")
    assert code == 0
    assert "nothing is lost" in said
    assert "Captures: 8 = 7 captured + 0 expired + 1 rejected" in said
    assert "invalid_json" in said


@pytest.mark.parametrize("event", [None, {"source": 1, "detail-type": [], "detail": "x"}])
def test_an_event_that_names_no_agent_is_sent_and_accounted_for(send, event):
    code, said = send(event)
    assert code == 0
    assert "Captures: 1 = 0 captured + 0 expired + 1 rejected" in said
    assert "no_agent_id" in said


def test_an_event_of_a_queue_without_a_body_is_sent_to_the_function_as_it_is(send):
    code, said = send({"Records": [{"eventSource": "aws:sqs", "messageId": "1"}]})
    assert code == 0
    assert "1 rejected" in said


def test_an_alarm_whose_name_no_rule_takes_is_refused_at_once_with_the_rule_and_its_prefix(send, sample):
    event = sample("eventbridge-alarm")
    event["detail"]["alarmName"] = "disk-full-web-01"
    code, said = send(event)
    assert code == 1
    assert 'AlarmRule needs detail.alarmName to match [{"prefix": "backup-"}]; it is "disk-full-web-01"' in said
    assert "on the embedded cloud" not in said


def test_an_alarm_whose_state_no_rule_takes_is_said_with_the_rule_and_is_no_failure(send, sample):
    code, said = send(sample("eventbridge-alarm-ok"))
    assert code == 0
    assert 'AlarmRule needs detail.state.value to match ["ALARM"]; it is "OK"' in said


def test_an_event_that_no_rule_is_for_is_said_with_what_each_of_them_needs(send, sample):
    code, said = send(sample("eventbridge-request") | {"detail-type": "Agent Log Capture"})
    assert code == 1
    assert 'RequestRule needs detail-type to match ["Agent Log Capture Requested"]; it is "Agent Log Capture"' in said
    assert "AlarmRule needs source to match" in said
    assert "AlarmRule needs detail.alarmName to match" in said
    assert "it is missing" in said


def test_an_alarms_own_action_that_may_not_invoke_the_function_is_said_with_the_permission(send, sample):
    event = sample("alarm-action")
    event["alarmData"]["alarmName"] = "disk-full-web-01"
    code, said = send(event)
    assert code == 1
    assert "AlarmActionPermission needs alarmData.alarmName" in said
    assert '"backup-"' in said


@pytest.mark.parametrize(
    ("content", "because"),
    [
        (b"no JSON", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"", "not JSON"),
        (b"[" * 200_000, "not JSON"),
        (json.dumps({"Records": [{"eventSource": "aws:sqs", "body": 2**21 * "a"}]}).encode(), "SendMessage"),
    ],
    ids=["text", "binary", "empty", "deep", "too large a message"],
)
def test_a_file_that_cannot_be_sent_is_refused_with_why(send, content, because):
    code, said = send(content, name="[bold]event.json")
    assert code == 2
    assert "EVENT=[bold]event.json" in said
    assert because in said


def test_a_file_with_a_byte_order_mark_is_read(send):
    assert send(b"\xef\xbb\xbf" + b'{"agent_id": "agent-1"}')[0] == 0


@pytest.mark.parametrize(
    ("name", "because"),
    [
        ("missing.json", "No such file"),
        (str(EVENTS), "Is a directory"),
        (f"{EVENTS}/manual.json {EVENTS}/sns-alarm.json", "EVENT takes one file"),
    ],
)
def test_what_is_not_one_file_is_refused_with_why(capsys, name, because):
    assert demo.main(name) == 2
    said = capsys.readouterr().err
    assert f"EVENT={name}" in said
    assert because in said


def test_make_hands_the_file_over_as_it_is_and_lets_no_shell_read_it(tmp_path):
    python = tmp_path / "python"
    python.write_text('#!/bin/sh\nprintf "%s" "$EVENT"\n')
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    event = "a b`touch ran`$(touch ran)$(shell touch ran)'\"$$HOME;touch ran"
    make = ["make", "--no-print-directory", "--old-file=.venv/installed", "demo", f"BIN={tmp_path}", f"EVENT={event}"]
    made = subprocess.run(make, cwd=demo.ROOT, capture_output=True, text=True, check=True)
    assert made.stdout == event
    assert not (demo.ROOT / "ran").exists()
