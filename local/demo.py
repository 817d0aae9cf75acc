"""`make demo`: the main job on the embedded cloud, and what came of it as it arrives."""

import contextlib
import json
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from agent_log_capture.core.intake import Reader
from local.clock import Clock
from local.cloud import EmbeddedCloud
from local.stand_in import Fault, StandIn

ROOT = Path(__file__).resolve().parent.parent
LOG_FILE = ROOT / "demo.log"
TIME_FACTOR = 60
LONGEST_SECONDS = 25
# A log file that does not come is waited for ten minutes in place of a day.
PARAMETERS = {"RotateToken": "true", "CaptureDeadlineSeconds": "600"}
_POLL_SECONDS = 0.05
_SHORT = 8  # characters of an ID: enough to tell one from the other
_FLEET = uuid.UUID("5f6f2e3a-6a52-4c1f-9b43-6d0c2f1a7c55")
_ENDINGS = {"captured": "green", "expired": "yellow", "rejected": "yellow", "failed": "red", "duplicate": "cyan"}
_COLOURS = {"requested": "dim", "waiting": "magenta"} | _ENDINGS


@dataclass
class Journey:
    """What one trigger has been told of one agent."""

    statuses: list[str]
    notice: Mapping[str, Any]
    seconds: float


@dataclass
class Run:
    """What was asked, and what has been told so far; `returning` is an agent that comes back when it is missed."""

    asked: int = 0
    returning: str | None = None
    ignored: list[str] = field(default_factory=list)
    journeys: dict[object, Journey] = field(default_factory=dict)
    sums: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    started: float = field(default_factory=time.monotonic)

    @property
    def endings(self) -> Counter[str]:
        """How many journeys have come to which ending."""
        last = (journey.statuses[-1] for journey in self.journeys.values())
        return Counter(status for status in last if status in _ENDINGS)

    @property
    def is_complete(self) -> bool:
        """Whether every agent that was asked has come to an ending, and every job to its sum."""
        agents = [journey.notice for journey in self.journeys.values() if journey.notice["agent_id"]]
        return self.endings.total() == self.asked and {notice["job_id"] for notice in agents} <= self.sums.keys()

    def add(self, notice: Mapping[str, Any]) -> None:
        """Take a notice that has just arrived."""
        key = notice["trigger"]["id"], notice["agent_id"] or notice["outcome_id"]
        earlier = self.journeys[key].statuses if key in self.journeys else []
        self.journeys[key] = Journey([*earlier, notice["status"]], notice, time.monotonic() - self.started)


@dataclass(frozen=True)
class Left:
    """What is in the queues when the demo ends."""

    waiting: int
    dead_letters: list[dict[str, Any]]


def main(arguments: list[str]) -> int:
    """Run the demo, or send the event in the file that is named; 0 when every agent is accounted for."""
    console = Console(file=sys.stdout, highlight=False)
    try:
        event = json.loads(Path(arguments[0]).read_text(encoding="utf-8")) if arguments else None
    except (OSError, ValueError) as error:
        console.print(f"[red]EVENT={arguments[0]} cannot be read as JSON:[/] {error}")
        return 2
    with LOG_FILE.open("w", encoding="utf-8") as log, contextlib.redirect_stdout(log):
        run, left = _demonstrate(console, event)
    return _summarise(console, run, left)


def _demonstrate(console: Console, event: object) -> tuple[Run, Left]:
    clock = Clock(TIME_FACTOR)
    console.print("[bold]agent-log-capture[/] on the embedded cloud, set up from template.yaml")
    console.print(f"Every delay is {TIME_FACTOR} times as short as it is on AWS.\n")
    with StandIn(clock=clock.time, latency_seconds=0.1) as api:
        api.add_account("operator", "an-api-key")
        secret = json.dumps({"username": "operator", "api_key": "an-api-key"})
        with EmbeddedCloud(api, clock=clock, secret=secret, parameters=PARAMETERS) as cloud:
            cloud.rotate_secret()
            cloud.poll()
            console.print("  → a username and an API key in the secret; its rotation gets the token")
            run = Run()
            steps = _own_event(api, cloud, run, event) if event is not None else _story(api, cloud, run)
            with _polling(cloud), Live(_table(run), console=console, vertical_overflow="visible") as live:
                for step in steps:
                    console.print(f"  → {step}")
                _watch(api, cloud, run, live)
            return run, Left(cloud.waiting, cloud.dead_letters())


def _story(api: StandIn, cloud: EmbeddedCloud, run: Run) -> Iterator[str]:
    """Send what comes in on a bad night: a list, an alarm about an agent that is on it too, and a test by hand."""
    alarm, test = (
        json.loads((ROOT / "events" / f"{name}.json").read_text()) for name in ("eventbridge-alarm", "manual")
    )
    fleet = [str(uuid.uuid5(_FLEET, f"agent {number}")) for number in range(24)]
    forbidden, busy, late, gone, _unknown, *others = fleet
    api.add_agents(busy, *others)
    api.add_agents(forbidden, forbidden=True)
    api.add_agents(late, gone, online=False)
    api.inject(busy, Fault(status=503, message="Down for maintenance.", headers={"Retry-After": "60"}))
    run.returning = late
    alarmed = _expect(api, run, alarm)
    run.asked += len(fleet) + len(alarmed)
    yield f"a list of {len(fleet + alarmed)} agents, as plain text, into CaptureQueue"
    cloud.send("\n".join(fleet + alarmed))
    yield f"the alarm {alarm['detail']['alarmName']}, about one of them, through AlarmRule"
    cloud.put_event(alarm)
    yield f"a test event with {len(_expect(api, run, test))} agents, by hand"
    report = cloud.invoke(test)
    yield "  its answer: " + ", ".join(f"{report[name]} {name}" for name in ("asked", *_COLOURS) if report[name])


def _own_event(api: StandIn, cloud: EmbeddedCloud, run: Run, event: object) -> Iterator[str]:
    """Send an event through the door that it is made for; every agent that it names is there."""
    _expect(api, run, event)
    yield f"your event, {cloud.deliver(event)}"


def _expect(api: StandIn, run: Run, event: object) -> list[str]:
    """Add every agent that an event names to the fleet, and to what is asked; return them."""
    arrivals = Reader(default_region="DFW").read(event, request_id="demo", now=datetime.now(UTC))
    agents = [capture.agent_id for arrival in arrivals for capture in arrival.captures]
    api.add_agents(*agents)
    run.asked += len(agents) + sum(len(arrival.refused) for arrival in arrivals)
    run.ignored += [arrival.ignored for arrival in arrivals if arrival.ignored]
    return agents


@contextlib.contextmanager
def _polling(cloud: EmbeddedCloud) -> Iterator[None]:
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


def _watch(api: StandIn, cloud: EmbeddedCloud, run: Run, live: Live) -> None:
    """Show notices as they arrive, until every agent has come to an ending."""
    while not run.is_complete and time.monotonic() - run.started < LONGEST_SECONDS:
        time.sleep(_POLL_SECONDS)
        for notice in cloud.notices():
            run.add(notice)
            if notice["status"] == "waiting" and notice["agent_id"] == run.returning:
                api.set_online(notice["agent_id"], online=True)
        run.sums |= {done["job_id"]: done for done in cloud.sums()}
        live.update(_table(run))


def _table(run: Run) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("after", "agent", "asked by", "what was told", ""):
        table.add_column(heading, no_wrap=bool(heading), overflow="ellipsis")
    for journey in run.journeys.values():
        trigger = journey.notice["trigger"]
        table.add_row(
            f"{journey.seconds:.1f} s",
            _short(journey.notice["agent_id"] or "-"),
            escape(trigger["name"] or trigger["type"]),
            " → ".join(f"[{_COLOURS[status]}]{status}[/]" for status in journey.statuses),
            escape(_said(journey.notice)),
        )
    return table


def _said(notice: Mapping[str, Any]) -> str:
    reason: str | None = notice["reason"]
    if reason is None:
        return f"attempt {notice['attempts']}" if notice["attempts"] > 1 else ""
    return reason.replace("_", " ")


def _short(text: str) -> str:
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}…"


def _summarise(console: Console, run: Run, left: Left) -> int:
    parts = [f"[{colour}]{run.endings[status]} {status}[/]" for status, colour in _ENDINGS.items()]
    is_complete = run.is_complete and left.waiting == 0
    console.print(f"\n[bold]{run.asked} asked[/] = {' + '.join(parts)}")
    for done in run.sums.values():
        asked_by = done["trigger"]["name"] or done["trigger"]["type"]
        console.print(f"  {escape(asked_by)}: {escape(done['message'])}", soft_wrap=True)
    console.print("[green]It adds up: nothing is lost.[/]" if is_complete else "[red]It does not add up.[/]")
    console.print(f"Still in CaptureQueue: {left.waiting}; in CaptureDeadLetterQueue: {len(left.dead_letters)}")
    for message in left.dead_letters:
        console.print(f"  {message['MessageAttributes']['reason']['StringValue']}: {escape(message['Body'][:60])}")
    for because in run.ignored:
        console.print(f"Ignored: {because}")
    console.print(f"The function's own log: {LOG_FILE.name}\n")
    console.print("Try next:")
    console.print("  make demo EVENT=events/sqs-list.json   any of events/, or your own")
    console.print("  make test                              every check of this project")
    return 0 if is_complete else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
