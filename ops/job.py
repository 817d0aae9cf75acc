"""`job`: what happened to each agent of a job."""

import csv
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent_log_capture.adapters.captures_table import CapturesTable, TableError
from agent_log_capture.domain.job import Fact, JobItems, progress
from ops.errors import WELL, OperatorError
from ops.stack import Stack

_COLUMNS = ("agent_id", "region", "status", "reason", "log_file_id", "trigger_type", "trigger_id")


def job(stack: Stack, job_id: str, *, path: Path | None) -> int:
    """Print a job's counts, and write a line for each of its agents to a CSV file; return the exit code."""
    table = CapturesTable(
        client=stack.client("dynamodb"),
        table=stack.output("CapturesTableName"),
        keep=timedelta(0),
        now=lambda: datetime.now(UTC),
        random=random.random,
        pause=time.sleep,
    )
    try:
        items = table.read_job(job_id)
        facts = table.read_facts(items) if items.parts else []
    except TableError as error:
        raise OperatorError(str(error)) from error
    if not items.parts:
        raise OperatorError(f"there is no job {job_id!r}: the job_id of each notification names one; jobs expire")
    found = progress(items.parts, facts)
    asked, ended = sum(part.asked for part in items.parts), sum(found.counts.values())
    print(f"{job_id}: {asked:,} asked, {ended:,} ended, {max(asked - ended, 0):,} waiting")
    for status, count in found.counts.items():
        if count:
            print(f"  {count:>8,}  {status}")
    if path:
        _write(path, items, found.facts)
        print(f"{len(found.facts):,} agents in {path}")
    return WELL


def _write(path: Path, items: JobItems, facts: Sequence[Fact]) -> None:
    """Write the agents that have ended, and those that wait after a replay; others have no fact yet."""
    triggers = {part.key: part.trigger for part in items.parts}
    try:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(_COLUMNS)
            for fact in sorted(facts, key=lambda fact: (fact.region, fact.agent_id)):
                trigger = triggers[fact.trigger_key]
                status = fact.status or "waiting"
                row = (fact.agent_id, fact.region, status, fact.reason, fact.log_file_id, trigger.type, trigger.id)
                writer.writerow(row)
    except OSError as error:
        raise OperatorError(f"CSV={path} cannot be written: {error.strerror}") from error
