"""`job`: what happened to each agent of a job."""

import csv
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent_log_capture.adapters.captures_table import CapturesTable
from agent_log_capture.domain.job import progress
from agent_log_capture.domain.outcome import Status
from agent_log_capture.domain.printable import printable
from ops.errors import WELL, OperatorError
from ops.stack import Stack

_SHOWN_CHARACTERS = 128
_COLUMNS = ("agent_id", "region", "status", "reason", "log_file_id")


def job(stack: Stack, job_id: str, *, path: Path | None) -> int:
    """Print a job's counts and the agents that are not captured, and write all to a CSV file if one is given.

    Agents that have no fact yet are counted only: they have not ended, and are not pending after a replay.
    """
    table = CapturesTable(
        client=stack.client("dynamodb"),
        table=stack.output("CapturesTableName"),
        keep=timedelta(0),
        now=lambda: datetime.now(UTC),
    )
    items = table.read_job(job_id)
    if not items.parts:
        raise OperatorError(f"there is no job {printable(job_id, _SHOWN_CHARACTERS)}, or it has expired")
    state = progress(items.parts, table.read_facts(items))
    asked, ended = sum(part.asked for part in items.parts), sum(state.counts.values())
    print(f"{job_id}: {asked:,} asked, {ended:,} ended, {max(asked - ended, 0):,} pending")
    print(*(f"  {count:>8,}  {status}" for status, count in state.counts.items() if count), sep="\n")
    facts = sorted(state.facts, key=lambda fact: (fact.region, fact.agent_id))
    agents = [(fact.agent_id, fact.region, fact.status or "pending", fact.reason, fact.log_file_id) for fact in facts]
    for agent_id, region, status, reason, _ in agents:
        if status != Status.CAPTURED:
            print(f"  {agent_id} in {region}: {status}{f', {reason}' if reason else ''}")
    if path:
        _write(path, agents)
        print(f"{len(agents):,} agents in {path}")
    return WELL


def _write(path: Path, rows: Iterable[Iterable[object]]) -> None:
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([_COLUMNS, *rows])
    except OSError as error:
        raise OperatorError(f"CSV={path} cannot be written: {error.strerror}") from error
