"""The fault campaign: many runs, each from its seed, and a table of their results.

python -m tests.faults.campaign                 a long campaign, from a seed that it draws
python -m tests.faults.campaign --seed 4711     one run, with all that happened in it
"""

import argparse
import logging
import multiprocessing
import os
import secrets
import sys
import time
import traceback
from collections import Counter
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from itertools import batched

from pytest_socket import socket_allow_hosts

from tests.faults.checks import check, ended_twice
from tests.faults.run import Run

RUNS = 2000
WORKERS = 3  # for two processors: while one waits for an answer that is slow, another works
_SEEDS = 10**9
_SEEDS_OF_A_PROCESS = 50
_SHOWN_LINES = 80
_SHOWN_VIOLATIONS = 5


@dataclass
class Summary:
    """The results of runs, added up."""

    runs: int = 0
    agents: int = 0
    captures: int = 0
    invocations: int = 0
    published_twice: int = 0
    posts: int = 0
    further_posts: int = 0
    lost: int = 0
    cpu_seconds: float = 0.0
    faults: Counter[str] = field(default_factory=Counter)
    endings: Counter[str] = field(default_factory=Counter)
    ended_twice: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def add(self, other):
        """Add the results of other runs."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    def table(self, seconds):
        """Return it as a person reads it."""
        rows = {
            "runs": self.runs,
            "agents": self.agents,
            "captures": self.captures,
            "invocations": self.invocations,
            "faults": self.faults.total(),
            "lost": self.lost,
            "published twice": self.published_twice,
            **{f"ended twice: {cause}": count for cause, count in (+self.ended_twice).items()},
            "POSTs": self.posts,
            "POSTs beyond the first": self.further_posts,
            "violations": len(self.violations),
        }
        lines = ["endings", *_rows(self.endings), "faults", *_rows(self.faults), "all in all", *_rows(rows)]
        speed = f"{seconds:.0f} s, {1000 * self.cpu_seconds / max(1, self.agents):.1f} ms of CPU for each agent"
        return "\n".join([*lines, speed])


def run(seed):
    """Do one run; return its summary, with a readable account of what went wrong."""
    began = time.process_time()
    record = Run(seed).go()
    violations = check(record)
    ids = [notification["outcome_id"] for notification in record.notifications]
    endings = Counter(
        {notification["outcome_id"]: notification["status"] for notification in record.notifications}.values()
    )
    return Summary(
        runs=1,
        agents=len({key.agent_id for key in record.keys}),
        captures=len(record.keys),
        invocations=len(record.invocations),
        published_twice=len(ids) - len(set(ids)),
        ended_twice=ended_twice(record),
        posts=record.asked.total(),
        further_posts=sum(count - 1 for count in record.asked.values() if count > 1),
        lost=sum(violation.rule == "lost" for violation in violations),
        faults=record.faults,
        endings=endings,
        violations=[account(record, violations)] if violations else [],
        cpu_seconds=time.process_time() - began,
    )


def account(record, violations):
    """Describe what went wrong in a run, and what led to it."""
    lines = [f"seed {record.seed}: {len(violations)} violations"]
    for violation in violations[:_SHOWN_VIOLATIONS]:
        lines.append(f"  {violation.rule}: {violation.about}: {violation.what}")
        lines += [f"    {line}" for line in _history(record, violation)[:_SHOWN_LINES]]
    return "\n".join(lines)


def _history(record, violation):
    """Return what happened to the agent that a violation is about, and to the invocations that had it."""
    agents = [key.agent_id for key in record.keys if key.agent_id in violation.about]
    agent_id = next(iter(agents), violation.about)
    numbers = {ended.number for ended in record.invocations if any(key.agent_id == agent_id for key in ended.keys)}
    wanted = {f"invocation {number}" for number in numbers}
    shown = []
    for line in record.history:
        text = line.partition(" ")[2]
        of = " ".join(text.split()[:2]).rstrip(":")
        is_of_another = "/agents/" in line and f"/{agent_id}/" not in line
        if (of in wanted or agent_id in line or "the faults stop" in line or "token" in text) and not is_of_another:
            shown.append(line[:200])
    return shown


def campaign(seeds, workers):
    """Do many runs in processes of their own; return their sum."""
    total = Summary()
    # Processes do not live for ever: moto keeps something of each run.
    for some in batched(seeds, _SEEDS_OF_A_PROCESS * workers, strict=False):
        _run_all(some, workers, total)
        _say(f"{total.runs} of {len(seeds)} runs, {len(total.violations)} with violations")
    return total


def _run_all(seeds, workers, total):
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_begin) as pool:
        runs = {pool.submit(run, seed): seed for seed in seeds}
        for future in as_completed(runs):
            try:
                summary = future.result()
            except Exception as error:  # noqa: BLE001 (a run that breaks is a finding, too)
                broken = f"seed {runs[future]} broke: {''.join(traceback.format_exception(error))}"
                summary = Summary(runs=1, violations=[broken])
            total.add(summary)
            # At once: the other runs take half an hour.
            for violations in summary.violations:
                _say(violations)


def _begin():
    """Make a process fit for runs: no network but loopback, no one's credentials, and the log to nowhere."""
    socket_allow_hosts(["127.0.0.1"])
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": os.devnull}
    os.environ |= {"AWS_SHARED_CREDENTIALS_FILE": os.devnull, "AWS_DEFAULT_REGION": "us-east-1"}
    logging.getLogger().setLevel(logging.CRITICAL)
    # What is killed leaves objects half made, and their destructors complain.
    sys.unraisablehook = lambda _: None
    sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115 (for as long as the process lives)


def _rows(figures):
    return [f"  {name:<44} {figure:>9,}" for name, figure in sorted(figures.items(), key=lambda item: -item[1])]


def _show(seed):
    """Do one run, and print all that happened in it."""
    out = sys.stdout
    _begin()
    record = Run(seed).go()
    violations = check(record)
    _say("\n".join(record.history), out)
    found = [f"{item.rule}: {item.about}: {item.what}" for item in violations]
    _say("\n".join(found or ["no violations"]), out)
    return len(violations)


def _say(text, file=None):
    print(text, file=file, flush=True)


def main():
    """Do what the command line says; the exit code is 1 after a violation."""
    parser = argparse.ArgumentParser(description="Break anything that can break, and see that nothing is lost.")
    parser.add_argument("--seed", type=int, help="repeat this run alone")
    parser.add_argument("--first", type=int, help="the first seed of many; drawn when it is left out")
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--workers", type=int, default=WORKERS)
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return 1 if _show(arguments.seed) else 0
    first = secrets.randbelow(_SEEDS) if arguments.first is None else arguments.first
    _say(f"seeds {first} to {first + arguments.runs - 1}")
    began = time.monotonic()
    total = campaign(range(first, first + arguments.runs), arguments.workers)
    _say(total.table(time.monotonic() - began))
    return 1 if total.violations else 0


if __name__ == "__main__":
    sys.exit(main())
