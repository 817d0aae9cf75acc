"""`make demo`: the main job on the embedded cloud, with each capture's statuses as they are published."""

import contextlib
import json
import os
import signal
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from agent_log_capture.domain.events.parser import EventParser, ParsedRecord
from local.clock import Clock
from local.fake_api import FakeApi

if TYPE_CHECKING:
    from local.cloud import EmbeddedCloud

ROOT = Path(__file__).resolve().parent.parent
LOG_FILE = Path("demo.log")
TIME_FACTOR = 60
LONGEST_SECONDS = 25
# Ten minutes instead of a day until a capture is expired.
PARAMETERS = {"RotateToken": "true", "CaptureDeadlineSeconds": "600"}
_POLL_SECONDS = 0.05
_PIPE_WIDTH = 500  # characters: without a screen, nothing is cut
_AROUND_ROWS = 5  # lines of the live view that are not rows of its table
_EXIT_CODE_OF_SIGINT = 130  # as a shell has it
_interrupted = threading.Event()
_FLEET = uuid.UUID("5f6f2e3a-6a52-4c1f-9b43-6d0c2f1a7c55")
_FINAL = {"captured": "green", "expired": "yellow", "rejected": "yellow", "failed": "red", "duplicate": "cyan"}
_COLOURS = {"requested": "dim", "waiting": "magenta"} | _FINAL

type Notification = Mapping[str, Any]
type Story = Callable[[FakeApi, "EmbeddedCloud", Run], Iterator[str]]


class EventError(Exception):
    """The file that EVENT names cannot be sent as an event."""


@dataclass
class Progress:
    """The statuses published for one capture, the last notification, and when it was published."""

    statuses: list[str]
    notification: Notification
    seconds: float


@dataclass
class Run:
    """What has been sent and published so far; the agent `returning` comes online when it is reported offline."""

    expected: int = 0
    returning: str | None = None
    ignored: list[str] = field(default_factory=list)
    captures: dict[object, Progress] = field(default_factory=dict)
    summaries: dict[str, Notification] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @property
    def counts(self) -> Counter[str]:
        """The number of captures by status."""
        return Counter(progress.statuses[-1] for progress in self.captures.values())

    @property
    def ended(self) -> int:
        """The number of captures with a final status."""
        return sum(self.counts[status] for status in _FINAL)

    @property
    def is_complete(self) -> bool:
        """Whether every capture has a final status, and every job its summary."""
        last = [progress.notification for progress in self.captures.values()]
        jobs = {notification["job_id"] for notification in last if notification["agent_id"]}
        return self.ended == self.expected and jobs <= self.summaries.keys()

    def add(self, notification: Notification) -> None:
        """Add a notification that has just been published."""
        key = notification["trigger"]["id"], notification["agent_id"] or notification["outcome_id"]
        earlier = self.captures[key].statuses if key in self.captures else []
        seconds = time.monotonic() - self.started
        self.captures[key] = Progress([*earlier, notification["status"]], notification, seconds)

    def expect(self, api: FakeApi, event: object) -> list[str]:
        """Add the agents of an event to the API, and their captures to the expected ones; return the agents."""
        records = _parse(event)
        agents = [capture.agent_id for record in records for capture in record.captures]
        api.add_agents(*agents)
        self.expected += len(agents) + sum(len(record.rejections) for record in records)
        self.ignored += [record.ignored for record in records if record.ignored]
        return agents


def main(event_file: str | None = None) -> int:
    """Run the demo, or send the event in a file.

    Returns 0 when every capture has a final status, 1 when one has not, 2 when the file cannot be sent.
    """
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    console = Console(file=sys.stdout, highlight=False, emoji=False, width=width)
    try:
        return _send_file(console, event_file) if event_file else _run(console, _bad_night)
    except EventError as error:
        print(f"EVENT={event_file}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return _EXIT_CODE_OF_SIGINT


def _send_file(console: Console, name: str) -> int:
    try:
        event: object = json.loads(Path(name).read_text(encoding="utf-8-sig"))
    except OSError as error:
        hint = ". EVENT takes one file" if " " in name else ""
        raise EventError(f"{error.strerror}{hint}") from error
    except (ValueError, RecursionError) as error:
        raise EventError(f"not JSON: {error}") from error
    # Here and below after Ctrl-C is handled: moto takes seconds to import.
    from local.rules import mismatches  # noqa: PLC0415

    found = mismatches(event)
    if not found:
        return _run(console, partial(_own_event, event))
    console.print("No rule or permission in template.yaml matches this event, so the function does not get it:")
    for mismatch in found:
        console.print(f"  {escape(mismatch)}", soft_wrap=True)
    return 1 if any(record.ignored is None for record in _parse(event)) else 0


def _parse(event: object) -> list[ParsedRecord]:
    return EventParser(default_region="DFW").parse(event, request_id="demo", now=datetime.now(UTC))


def _run(console: Console, story: Story) -> int:
    clock, secret = Clock(TIME_FACTOR), {"username": "operator", "api_key": "an-api-key"}
    console.print("[bold]agent-log-capture[/] on the embedded cloud, set up from template.yaml")
    console.print(f"Every delay is {TIME_FACTOR} times as short as it is on AWS.\n")
    from local.cloud import EmbeddedCloud  # noqa: PLC0415

    _stop_if_interrupted()
    with (
        LOG_FILE.open("w", encoding="utf-8") as log,
        contextlib.redirect_stdout(log),  # the function's own log
        FakeApi(clock=clock.time, latency_seconds=0.1) as api,
        EmbeddedCloud(api, clock=clock, secret=json.dumps(secret), parameters=PARAMETERS) as cloud,
    ):
        _stop_if_interrupted()
        api.add_account(**secret)
        cloud.rotate_secret()
        cloud.poll()
        console.print("  → a username and an API key in the secret; its rotation gets the token")
        run = Run()
        for step in story(api, cloud, run):
            console.print(f"  → {step}")
            _stop_if_interrupted()
        _watch(console, api, cloud, run)
        return _summarise(console, run, cloud.waiting, cloud.dead_letters())


def _bad_night(api: FakeApi, cloud: "EmbeddedCloud", run: Run) -> Iterator[str]:
    """Send a list, an alarm about one of its agents, and a manual test."""
    alarm, test = (
        json.loads((ROOT / "events" / f"{name}.json").read_text()) for name in ("eventbridge-alarm", "manual")
    )
    fleet = [str(uuid.uuid5(_FLEET, f"agent {number}")) for number in range(24)]
    forbidden, busy, run.returning, off, slow, _unknown, *others = fleet
    api.add_agents(*others)
    api.add_agents(busy, retry_after_seconds=60)
    api.add_agents(slow, pick_up_seconds=240)
    api.add_agents(forbidden, forbidden=True)
    api.add_agents(run.returning, off, online=False)
    listed = fleet + run.expect(api, alarm)
    run.expected += len(listed)
    yield f"a list of {len(listed)} agents, as plain text, to CaptureQueue: two are offline, one is slow"
    cloud.send("\n".join(listed))
    yield f"the alarm {alarm['detail']['alarmName']}, about one of them, through AlarmRule"
    cloud.put_event(alarm)
    yield f"a test event with {len(run.expect(api, test))} agents, by hand"
    report = cloud.invoke(test)
    yield "  its response: " + ", ".join(f"{report[name]} {name}" for name in ("asked", *_COLOURS) if report[name])


def _own_event(event: object, api: FakeApi, cloud: "EmbeddedCloud", run: Run) -> Iterator[str]:
    """Send an event through its own source; the API has all of its agents."""
    run.expect(api, event)
    try:
        source = cloud.deliver(event)
        yield f"your event, {source}"
    except (BotoCoreError, ClientError) as error:
        raise EventError(str(error)) from error


def _stop_if_interrupted() -> None:
    """End the demo after Ctrl-C, where no worker of the function is running: none may outlive its cloud."""
    if _interrupted.is_set():
        raise KeyboardInterrupt


def _watch(console: Console, api: FakeApi, cloud: "EmbeddedCloud", run: Run) -> None:
    """Deliver what arrives and show notifications, until every capture has a final status."""
    # The live view would otherwise show what the function prints.
    with Live(console=console, transient=True, redirect_stdout=False) as live:
        while not run.is_complete and time.monotonic() - run.started < LONGEST_SECONDS:
            cloud.poll()
            _stop_if_interrupted()
            for notification in cloud.notifications():
                run.add(notification)
                if notification["status"] == "waiting" and notification["agent_id"] == run.returning:
                    api.set_online(notification["agent_id"], online=True)
            run.summaries |= {summary["job_id"]: summary for summary in cloud.sums()}
            live.update(_live_view(run, console.height))
            time.sleep(_POLL_SECONDS)


def _live_view(run: Run, height: int) -> Group:
    """Return the latest captures, as far as they fit the screen, and the number of captures by status."""
    latest = sorted(run.captures.values(), key=lambda progress: progress.seconds)[-max(1, height - _AROUND_ROWS) :]
    counts = [_count(run, status) for status in _COLOURS if run.counts[status]]
    return Group(_table(latest), "", f"Captures: {', '.join([*counts, f'of {run.expected}'])}")


def _table(captures: Iterable[Progress]) -> Table:
    """Return a table that cuts agent IDs and names where the screen is narrow, and never a status."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("after", no_wrap=True)
    table.add_column("agent")
    table.add_column("trigger")
    table.add_column("status", no_wrap=True)
    for progress in captures:
        notification, trigger = progress.notification, progress.notification["trigger"]
        names = notification["agent_id"] or "-", trigger["name"] or trigger["type"]
        cut = [Text(name, no_wrap=True, overflow="ellipsis") for name in names]
        statuses = " → ".join(f"[{_COLOURS[status]}]{status}[/]" for status in progress.statuses)
        detail = f", attempt {notification['attempts']}" if notification["attempts"] > 1 else ""
        if notification["reason"] is not None:
            detail = f": {notification['reason'].replace('_', ' ')}"
        table.add_row(f"{progress.seconds:.1f} s", *cut, statuses + escape(detail))
    return table


def _count(run: Run, status: str) -> str:
    return f"[{_COLOURS[status]}]{run.counts[status]} {status}[/]"


def _summarise(console: Console, run: Run, waiting: int, dead_letters: list[dict[str, Any]]) -> int:
    is_complete = run.is_complete and waiting == 0
    if run.expected:
        console.print(_table(run.captures.values()))
        counts = " + ".join(_count(run, status) for status in _FINAL)
        console.print(f"\n[bold]Captures: {run.expected}[/] = {counts}")
    for summary in run.summaries.values():
        name = summary["trigger"]["name"] or summary["trigger"]["type"]
        console.print(f"  {escape(name)}: {escape(summary['message'])}")
    for reason in run.ignored:
        console.print(f"Ignored: {escape(reason)}")
    if is_complete:
        console.print("[green]Every capture has a final status: nothing is lost.[/]")
    else:
        ended = f"{run.ended} of {run.expected} captures have a final status"
        console.print(f"[red]After {LONGEST_SECONDS} s, {ended}.[/]")
    console.print(f"Still waiting in CaptureQueue: {waiting}")
    console.print(f"In CaptureDeadLetterQueue: {len(dead_letters)}")
    for message in dead_letters:
        reason = message.get("MessageAttributes", {}).get("reason", {}).get("StringValue", "no reason")
        console.print(f"  {reason}: {escape(message['Body'][:60])}")
    console.print(f"The function's own log: {LOG_FILE}\n")
    console.print("Try next:")
    console.print("  make demo EVENT=events/sqs-list.json   any of events/, or your own")
    console.print("  make test                              every check of this project")
    return 0 if is_complete else 1


def _interrupt(*_: object) -> None:
    """Let the demo end after what it is doing; let a second Ctrl-C end it at once."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    _interrupted.set()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _interrupt)
    sys.exit(main(os.environ.get("EVENT")))
