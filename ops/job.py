"""`job`: what happened to each agent of a job."""

import csv
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent_log_capture.adapters.captures_table import CapturesTable, TableError
from agent_log_capture.domain.job import Fact, progress
from agent_log_capture.domain.outcome import Status
from agent_log_capture.domain.printable import printable
from ops.errors import WELL, OperatorError
from ops.stack import Stack

_SHOWN_CHARACTERS = 128
_COLUMNS = ("agent_id", "region", "status", "reason", "log_file_id")


def job(stack: Stack, job_id: str, *, path: Path | None) -> int:
    """Print a job's counts and the agents that are not captured, and write all to a CSV file if one is given."""
    table = CapturesTable(
        client=stack.client("dynamodb"),
        table=stack.output("CapturesTableName"),
        keep=timedelta(0),
        now=lambda: datetime.now(UTC),
    )
    try:
        items = table.read_job(job_id)
        facts = table.read_facts(items) if items.parts else []
    except TableError as error:
        raise OperatorError(str(error)) from error
    if not items.parts:
        raise OperatorError(f"there is no job {printable(job_id, _SHOWN_CHARACTERS)}, or it has expired")
    state = progress(items.parts, facts)
    asked, ended = sum(part.asked for part in items.parts), sum(state.counts.values())
    print(f"{job_id}: {asked:,} asked, {ended:,} ended, {max(asked - ended, 0):,} pending")
    print(*(f"  {count:>8,}  {status}" for status, count in state.counts.items() if count), sep="\n")
    agents = sorted(state.facts, key=lambda fact: (fact.region, fact.agent_id))
    for fact in agents:
        if fact.status is not Status.CAPTURED:
            print(f"  {fact.agent_id} in {fact.region}: {_status(fact)}{f', {fact.reason}' if fact.reason else ''}")
    if path:
        _write(path, agents)
        print(f"{len(agents):,} agents in {path}")
    return WELL


def _status(fact: Fact) -> str:
    return fact.status or "pending"


def _write(path: Path, facts: Sequence[Fact]) -> None:
    """Write the agents that have ended, and those that are pending after a replay; others have no fact yet."""
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            writer.writerows(
                (fact.agent_id, fact.region, _status(fact), fact.reason, fact.log_file_id) for fact in facts
            )
    except OSError as error:
        raise OperatorError(f"CSV={path} cannot be written: {error.strerror}") from error
