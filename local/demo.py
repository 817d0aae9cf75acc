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
from typing import TYPE_CHECKING, Any, NoReturn

from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from agent_log_capture.domain.events.parser import EventParser, ParsedRecord
from local.clock import Clock
from local.fake_api import FakeApi, Fault

if TYPE_CHECKING:
    from local.cloud import EmbeddedCloud

ROOT = Path(__file__).resolve().parent.parent
LOG_FILE = Path("demo.log")
TIME_FACTOR = 60
LONGEST_SECONDS = 25
# A log file that does not come is waited for ten minutes in place of a day.
PARAMETERS = {"RotateToken": "true", "CaptureDeadlineSeconds": "600"}
_POLL_SECONDS = 0.05
_PIPE_WIDTH = 500  # characters: nothing is cut where there is no screen
_AROUND_ROWS = 5  # lines of the live view that are no rows of its table
_INTERRUPTED = 130  # what a shell says of a process that SIGINT ended
_FLEET = uuid.UUID("5f6f2e3a-6a52-4c1f-9b43-6d0c2f1a7c55")
_ENDINGS = {"captured": "green", "expired": "yellow", "rejected": "yellow", "failed": "red", "duplicate": "cyan"}
_COLOURS = {"requested": "dim", "waiting": "magenta"} | _ENDINGS

type Steps = Callable[[FakeApi, "EmbeddedCloud", Run], Iterator[str]]


class EventError(Exception):
    """The file that EVENT names cannot be sent as an event."""


@dataclass
class Journey:
    """The statuses that were published for one agent of one trigger; `notification` is the last notification."""

    statuses: list[str]
    notification: Mapping[str, Any]
    seconds: float


@dataclass
class Run:
    """What was asked for, and what was published so far; `returning` comes online when it is missed."""

    asked: int = 0
    returning: str | None = None
    ignored: list[str] = field(default_factory=list)
    journeys: dict[object, Journey] = field(default_factory=dict)
    sums: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    waiting: int = 0
    dead_letters: list[dict[str, Any]] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    @property
    def counts(self) -> Counter[str]:
        """How many captures have which status."""
        return Counter(journey.statuses[-1] for journey in self.journeys.values())

    @property
    def ended(self) -> int:
        """How many captures have a final status."""
        return sum(self.counts[status] for status in _ENDINGS)

    @property
    def is_complete(self) -> bool:
        """Whether every capture has a final status, and every job its summary."""
        agents = [journey.notification for journey in self.journeys.values() if journey.notification["agent_id"]]
        return self.ended == self.asked and {notification["job_id"] for notification in agents} <= self.sums.keys()

    def add(self, notification: Mapping[str, Any]) -> None:
        """Take a notification that has just arrived."""
        key = notification["trigger"]["id"], notification["agent_id"] or notification["outcome_id"]
        earlier = self.journeys[key].statuses if key in self.journeys else []
        self.journeys[key] = Journey(
            [*earlier, notification["status"]], notification, time.monotonic() - self.started
        )


def main(event_file: str | None = None) -> int:
    """Run the demo, or send the event in a file.

    Returns 0 when every capture has a final status, 1 when one has not, 2 when the file cannot be sent.
    """
    console = Console(
        file=sys.stdout, highlight=False, emoji=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH
    )
    try:
        return _send_file(console, event_file) if event_file else _run(console, _story)
    except EventError as error:
        print(f"EVENT={event_file}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return _INTERRUPTED


def _send_file(console: Console, name: str) -> int:
    event = _read(name)
    # Here and below, where Ctrl-C is quiet: moto takes seconds to import.
    from local.rules import mismatches  # noqa: PLC0415

    found = mismatches(event)
    if not found:
        return _run(console, partial(_own_event, event))
    console.print("template.yaml does not let this event through, so the function does not get it:")
    for mismatch in found:
        console.print(f"  {escape(mismatch)}", soft_wrap=True)
    return 1 if any(parsed.ignored is None for parsed in _arrivals(event)) else 0


def _read(name: str) -> object:
    """Return the event in a file; EventError when it cannot be read."""
    try:
        return json.loads(Path(name).read_text(encoding="utf-8-sig"))
    except OSError as error:
        hint = ". EVENT takes one file" if " " in name else ""
        raise EventError(f"{error.strerror}{hint}") from error
    except (ValueError, RecursionError) as error:
        raise EventError(f"not JSON: {error}") from error


def _run(console: Console, steps: Steps) -> int:
    with LOG_FILE.open("w", encoding="utf-8") as log, contextlib.redirect_stdout(log):
        run = _demonstrate(console, steps)
    return _summarise(console, run)


def _demonstrate(console: Console, steps: Steps) -> Run:
    clock = Clock(TIME_FACTOR)
    console.print("[bold]agent-log-capture[/] on the embedded cloud, set up from template.yaml")
    console.print(f"Every delay is {TIME_FACTOR} times as short as it is on AWS.\n")
    from local.cloud import EmbeddedCloud  # noqa: PLC0415

    with FakeApi(clock=clock.time, latency_seconds=0.1) as api:
        api.add_account("operator", "an-api-key")
        secret = json.dumps({"username": "operator", "api_key": "an-api-key"})
        with EmbeddedCloud(api, clock=clock, secret=secret, parameters=PARAMETERS) as cloud:
            cloud.rotate_secret()
            cloud.poll()
            console.print("  → a username and an API key in the secret; its rotation gets the token")
            run = Run()
            # What the function prints belongs in the log: `Live` would print it on the screen.
            live = Live(console=console, transient=True, redirect_stdout=False)
            with _polling(cloud), live:
                for step in steps(api, cloud, run):
                    console.print(f"  → {step}")
                _watch(api, cloud, run, live)
            run.waiting, run.dead_letters = cloud.waiting, cloud.dead_letters()
            return run


def _story(api: FakeApi, cloud: "EmbeddedCloud", run: Run) -> Iterator[str]:
    """Send what comes in on a bad night: a list, an alarm about an agent that is on it too, and a test by hand."""
    alarm, test = (
        json.loads((ROOT / "events" / f"{name}.json").read_text()) for name in ("eventbridge-alarm", "manual")
    )
    fleet = [str(uuid.uuid5(_FLEET, f"agent {number}")) for number in range(24)]
    forbidden, busy, late, gone, slow, _unknown, *others = fleet
    api.add_agents(busy, *others)
    api.add_agents(slow, pick_up_seconds=240)
    api.add_agents(forbidden, forbidden=True)
    api.add_agents(late, gone, online=False)
    api.inject(busy, Fault(status=503, message="Down for maintenance.", headers={"Retry-After": "60"}))
    run.returning = late
    alarmed = _expect(api, run, alarm)
    run.asked += len(fleet) + len(alarmed)
    yield f"a list of {len(fleet + alarmed)} agents, as plain text, to CaptureQueue: two are offline, one is slow"
    cloud.send("\n".join(fleet + alarmed))
    yield f"the alarm {alarm['detail']['alarmName']}, about one of them, through AlarmRule"
    cloud.put_event(alarm)
    yield f"a test event with {len(_expect(api, run, test))} agents, by hand"
    report = cloud.invoke(test)
    yield "  its response: " + ", ".join(f"{report[name]} {name}" for name in ("asked", *_COLOURS) if report[name])


def _own_event(event: object, api: FakeApi, cloud: "EmbeddedCloud", run: Run) -> Iterator[str]:
    """Send an event from the source that it is from; every agent that it names is there."""
    _expect(api, run, event)
    try:
        yield f"your event, {cloud.deliver(event)}"
    except (BotoCoreError, ClientError) as error:
        raise EventError(str(error)) from error


def _expect(api: FakeApi, run: Run, event: object) -> list[str]:
    """Add every agent that an event names to the fleet, and to what is asked for; return them."""
    parsed_records = _arrivals(event)
    agents = [capture.agent_id for parsed in parsed_records for capture in parsed.captures]
    api.add_agents(*agents)
    run.asked += len(agents) + sum(len(parsed.rejections) for parsed in parsed_records)
    run.ignored += [parsed.ignored for parsed in parsed_records if parsed.ignored]
    return agents


def _arrivals(event: object) -> list[ParsedRecord]:
    return EventParser(default_region="DFW").parse(event, request_id="demo", now=datetime.now(UTC))


@contextlib.contextmanager
def _polling(cloud: "EmbeddedCloud") -> Iterator[None]:
    """Deliver what arrives, beside the demo, until it ends."""
    ended = threading.Event()

    def poll() -> None:
        while not ended.wait(_POLL_SECONDS):
            cloud.poll()

    poller = threading.Thread(target=poll, name="lambda")
    poller.start()
    try:
        yield
    finally:
        ended.set()
        poller.join()


def _watch(api: FakeApi, cloud: "EmbeddedCloud", run: Run, live: Live) -> None:
    """Show notifications as they arrive, until every capture has a final status."""
    while not run.is_complete and time.monotonic() - run.started < LONGEST_SECONDS:
        time.sleep(_POLL_SECONDS)
        for notification in cloud.notifications():
            run.add(notification)
            if notification["status"] == "waiting" and notification["agent_id"] == run.returning:
                api.set_online(notification["agent_id"], online=True)
        run.sums |= {done["job_id"]: done for done in cloud.sums()}
        live.update(_live_view(run, live.console.height))


def _live_view(run: Run, height: int) -> Group:
    """Return what changed last, as far as it fits a screen, and how many captures have which status."""
    changed = sorted(run.journeys.values(), key=lambda journey: journey.seconds)
    counts = [_count(run, status) for status in _COLOURS if run.counts[status]]
    return Group(
        _table(changed[-max(1, height - _AROUND_ROWS) :]), "", f"Captures: {', '.join([*counts, f'of {run.asked}'])}"
    )


def _table(journeys: Iterable[Journey]) -> Table:
    """Return a table that cuts agent IDs and names where the screen is narrow, and never a status."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("after", no_wrap=True)
    table.add_column("agent")
    table.add_column("trigger")
    table.add_column("status", no_wrap=True)
    for journey in journeys:
        notification = journey.notification
        names = notification["agent_id"] or "-", notification["trigger"]["name"] or notification["trigger"]["type"]
        cut = [Text(name, no_wrap=True, overflow="ellipsis") for name in names]
        statuses = " → ".join(f"[{_COLOURS[status]}]{status}[/]" for status in journey.statuses)
        table.add_row(f"{journey.seconds:.1f} s", *cut, statuses + escape(_detail(notification)))
    return table


def _count(run: Run, status: str) -> str:
    return f"[{_COLOURS[status]}]{run.counts[status]} {status}[/]"


def _detail(notification: Mapping[str, Any]) -> str:
    if notification["reason"] is not None:
        return f": {notification['reason'].replace('_', ' ')}"
    return f", attempt {notification['attempts']}" if notification["attempts"] > 1 else ""


def _summarise(console: Console, run: Run) -> int:
    is_complete = run.is_complete and run.waiting == 0
    if run.asked:
        console.print(_table(run.journeys.values()))
        console.print(f"\n[bold]Captures: {run.asked}[/] = {' + '.join(_count(run, status) for status in _ENDINGS)}")
    for done in run.sums.values():
        name = done["trigger"]["name"] or done["trigger"]["type"]
        console.print(f"  {escape(name)}: {escape(done['message'])}")
    for because in run.ignored:
        console.print(f"Ignored: {escape(because)}")
    if is_complete:
        console.print("[green]Every capture has a final status: nothing is lost.[/]")
    else:
        console.print(f"[red]After {LONGEST_SECONDS} s, {run.ended} of {run.asked} captures have a final status.[/]")
    console.print(f"Still waiting in CaptureQueue: {run.waiting}")
    console.print(f"In CaptureDeadLetterQueue: {len(run.dead_letters)}")
    for message in run.dead_letters:
        reason = message.get("MessageAttributes", {}).get("reason", {}).get("StringValue", "no reason")
        console.print(f"  {reason}: {escape(message['Body'][:60])}")
    console.print(f"The function's own log: {LOG_FILE}\n")
    console.print("Try next:")
    console.print("  make demo EVENT=events/sqs-list.json   any of events/, or your own")
    console.print("  make test                              every check of this project")
    return 0 if is_complete else 1


def _interrupt(*_: object) -> NoReturn:
    """End the demo in order; let a second Ctrl-C end it at once."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGINT, _interrupt)
    sys.exit(main(os.environ.get("EVENT")))
