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
TIME_FACTOR = 10
LONGEST_SECONDS = 25
_POLL_SECONDS = 0.05
_SHORT = 8  # characters of an ID: enough to tell one from the other
_FLEET = uuid.UUID("5f6f2e3a-6a52-4c1f-9b43-6d0c2f1a7c55")
_COLOURS = {"requested": "green", "rejected": "yellow", "failed": "red"}


@dataclass
class Run:
    """What was asked, and what has been told so far."""

    asked: int = 0
    ignored: list[str] = field(default_factory=list)
    notices: list[dict[str, Any]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    @property
    def counts(self) -> Counter[str]:
        """How many notices there are of each status."""
        return Counter(notice["status"] for notice in self.notices)

    def add(self, notices: list[dict[str, Any]]) -> None:
        """Take notices that have just arrived."""
        self.notices += notices
        self.seconds += [time.monotonic() - self.started] * len(notices)


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
    console.print("[bold]agent-log-capture[/] on the embedded cloud, set up from template.yaml\n")
    with StandIn(clock=clock.time, latency_seconds=0.1) as api:
        secret = json.dumps({"token": api.issue_token(), "project_id": api.project_id})
        with EmbeddedCloud(api, clock=clock, secret=secret) as cloud:
            run = Run()
            steps = _own_event(api, cloud, run, event) if event is not None else _story(api, cloud, run)
            with _polling(cloud), Live(_table(run), console=console, vertical_overflow="visible") as live:
                for step in steps:
                    console.print(f"  → {step}")
                _watch(cloud, run, live)
            return run, Left(cloud.waiting, cloud.dead_letters())


def _story(api: StandIn, cloud: EmbeddedCloud, run: Run) -> Iterator[str]:
    """Send what comes in on a bad night: a list, an alarm and a test by hand."""
    fleet = [str(uuid.uuid5(_FLEET, f"agent {number}")) for number in range(25)]
    forbidden, busy, _unknown, *others = fleet
    api.add_agents(busy, *others)
    api.add_agents(forbidden, forbidden=True)
    api.inject(busy, Fault(status=503, message="Down for maintenance.", headers={"Retry-After": "20"}))
    yield f"a list of {len(fleet)} agents, as plain text, into CaptureQueue"
    cloud.send("\n".join(fleet))
    run.asked += len(fleet)

    alarm = json.loads((ROOT / "events/eventbridge-alarm.json").read_text(encoding="utf-8"))
    _make_known(api, run, alarm)
    yield f"the alarm {alarm['detail']['alarmName']}, through EventBridge and AlarmRule"
    cloud.put_event(alarm)

    test = json.loads((ROOT / "events/manual.json").read_text(encoding="utf-8"))
    _make_known(api, run, test)
    yield f"a test event with {len(test['agent_ids'])} agents, by hand"
    report = cloud.invoke(test)
    counts = ", ".join(f"{report[name]} {name}" for name in ("asked", "requested", "rejected", "failed", "deferred"))
    yield f"  its answer: {counts}"


def _own_event(api: StandIn, cloud: EmbeddedCloud, run: Run, event: object) -> Iterator[str]:
    """Send an event through the door that it is made for; every agent that it names is there."""
    _make_known(api, run, event)
    yield f"your event, {cloud.deliver(event)}"


def _make_known(api: StandIn, run: Run, event: object) -> None:
    """Add every agent that an event names to the fleet, and to what is asked."""
    for arrival in Reader(default_region="DFW").read(event, request_id="demo", now=datetime.now(UTC)):
        api.add_agents(*(capture.agent_id for capture in arrival.captures))
        run.asked += len(arrival.captures) + len(arrival.refused)
        run.ignored += [arrival.ignored] if arrival.ignored else []


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


def _watch(cloud: EmbeddedCloud, run: Run, live: Live) -> None:
    """Show notices as they arrive, until every agent has one."""
    while len(run.notices) < run.asked and time.monotonic() - run.started < LONGEST_SECONDS:
        time.sleep(_POLL_SECONDS)
        run.add(cloud.notices())
        live.update(_table(run))


def _table(run: Run) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in ("after", "status", "agent", "asked by", "what the notice says"):
        table.add_column(heading, overflow="fold", no_wrap=heading != "what the notice says")
    for seconds, notice in zip(run.seconds, run.notices, strict=True):
        status, trigger = notice["status"], notice["trigger"]
        table.add_row(
            f"{seconds:.1f} s",
            f"[{_COLOURS[status]}]{status}[/]",
            _short(notice["agent_id"] or "-"),
            escape(trigger["name"] or trigger["type"]),
            escape(_said(notice)),
        )
    return table


def _said(notice: Mapping[str, Any]) -> str:
    if notice["logfile"]:
        again = f", attempt {notice['attempts']}" if notice["attempts"] > 1 else ""
        return f"log file {_short(notice['logfile']['id'])}{again}"
    code = f" (HTTP {notice['http_status']})" if notice["http_status"] else ""
    return f"{notice['message']}{code}"


def _short(text: str) -> str:
    return text if len(text) <= _SHORT else f"{text[:_SHORT]}…"


def _summarise(console: Console, run: Run, left: Left) -> int:
    parts = [f"[{_COLOURS[status]}]{run.counts[status]} {status}[/]" for status in _COLOURS]
    is_complete = len(run.notices) == run.asked and left.waiting == 0
    verdict = "[green]it adds up: nothing is lost[/]" if is_complete else "[red]it does not add up[/]"
    console.print(f"\n[bold]{run.asked} asked[/] = {' + '.join(parts)}: {verdict}")
    console.print(f"Still in CaptureQueue: {left.waiting}; in CaptureDeadLetterQueue: {len(left.dead_letters)}")
    for message in left.dead_letters:
        console.print(f"  {message['MessageAttributes']['reason']['StringValue']}: {escape(message['Body'][:80])}")
    for because in run.ignored:
        console.print(f"Ignored: {because}")
    console.print(f"Delays ran {TIME_FACTOR} times as fast. The function's own log: {LOG_FILE.name}\n")
    console.print("Try next:")
    console.print("  make demo EVENT=events/sqs-list.json   any of events/, or your own")
    console.print("  make test                              every check of this project")
    return 0 if is_complete else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
