"""Secrets stay secret anything that fails, with everything logged that can be."""

import logging
import traceback
from dataclasses import dataclass, field

import pytest

from tests.faults import run as runs
from tests.faults.run import Run
from tests.faults.transports import REPEATED, AwsTransport

# Between them, faults at every boundary.
SEEDS = (101, 134, 140)
# What is killed leaves its connections as they are.
pytestmark = [
    pytest.mark.faults,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
API_KEY = "the-api-key"
SIGNATURE = "temp_url_sig"


@dataclass
class Said:
    """All that runs have said, by where it was said; and the secrets that they had."""

    texts: dict[str, str] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)
    faults: set[str] = field(default_factory=set)

    def places_of(self, secret):
        forms = [form(secret) for form in REPEATED]
        return sorted(place for place, text in self.texts.items() if any(form in text for form in forms))


class Sent:
    """What the function has sent to AWS, but for Secrets Manager."""

    def __init__(self, patch):
        self.bodies = []
        call = AwsTransport.__call__

        def noted_call(wire, request, serve):
            body = request.body.decode() if isinstance(request.body, bytes) else str(request.body)
            if "secretsmanager" not in request.url:
                self.bodies.append(body.replace("%5F", "_"))
            return call(wire, request, serve)

        patch.setattr(AwsTransport, "__call__", noted_call)


def said_in_runs(seeds, monkeypatch, caplog, capsys, *, is_link_published):
    """Do some runs at DEBUG level, and gather all that was said."""
    monkeypatch.setenv("POWERTOOLS_LOG_LEVEL", "DEBUG")
    monkeypatch.setattr(runs, "Plan", _plan_with(PublishDownloadUrl=str(is_link_published).lower()))
    caplog.set_level(logging.DEBUG)
    sent = Sent(monkeypatch)
    said = Said()
    for seed in seeds:
        run = Run(seed)
        record = run.go()
        said.secrets |= set(run.api._tokens)  # noqa: SLF001
        said.faults |= {kind.partition(":")[0] for kind in record.faults}
        said.texts[f"notifications of {seed}"] = str(record.notifications)
        said.texts[f"queues of {seed}"] = str((record.letters, record.left))
        invocations = run.sandbox.invocations
        said.texts[f"reports of {seed}"] = str([(item.report, item.answer) for item in invocations])
        errors = [traceback.format_exception(item.error) for item in invocations if item.error]
        said.texts[f"errors of {seed}"] = str(errors)
    said.texts["AWS"] = "\n".join(sent.bodies)
    formatter = logging.Formatter("%(message)s %(args)s")
    said.texts["log"] = "\n".join(f"{formatter.format(item)} {item.__dict__}" for item in caplog.records)
    output = capsys.readouterr()
    said.texts["output"] = output.out + output.err
    return said


def _plan_with(**parameters):
    class Plan(runs.Plan):
        def __init__(self, seed):
            super().__init__(seed)
            self.is_rotated = seed % 2 == 0
            self.parameters |= parameters | {"RotateToken": str(self.is_rotated).lower()}

    return Plan


def test_no_secret_is_said_anywhere_anything_that_fails(monkeypatch, caplog, capsys):
    said = said_in_runs(SEEDS, monkeypatch, caplog, capsys, is_link_published=False)
    assert said.faults >= {"api", "identity", "sns", "sqs", "dynamodb", "secretsmanager", "killed", "token"}
    assert len(said.secrets) >= len(SEEDS)
    assert {
        secret: places for secret in (*said.secrets, API_KEY, SIGNATURE) if (places := said.places_of(secret))
    } == {}
    # It was looked for where much was said.
    assert {place: len(said.texts[place]) > 100_000 for place in ("AWS", "log")} == {"AWS": True, "log": True}
    assert "'levelname': 'DEBUG'" in said.texts["log"]


def test_the_signed_link_is_found_where_it_may_be_said(monkeypatch, caplog, capsys):
    said = said_in_runs([134], monkeypatch, caplog, capsys, is_link_published=True)
    places = {place.partition(" of ")[0] for place in said.places_of(SIGNATURE)}
    assert places >= {"notifications", "reports", "AWS"}
    assert places.isdisjoint({"log", "output", "errors", "queues"})
