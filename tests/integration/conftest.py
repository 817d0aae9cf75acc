import json
from pathlib import Path

import boto3
import pytest

from agent_log_capture.core.intake import Reader
from local.clock import Clock
from local.cloud import EmbeddedCloud
from local.stand_in import StandIn

EVENTS = Path(__file__).resolve().parents[2] / "events"


@pytest.fixture
def samples():
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in EVENTS.glob("*.json")}


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def api(clock, samples):
    """The stand-in, with every agent that a sample names."""
    with StandIn(clock=clock.time) as stand_in:
        for event in samples.values():
            for arrival in Reader(default_region="DFW").read(event, request_id="request", now=clock.now()):
                stand_in.add_agents(*(capture.agent_id for capture in arrival.captures))
        yield stand_in


@pytest.fixture
def token_json(api):
    return json.dumps({"token": api.issue_token(lives_seconds=10**7), "project_id": api.project_id})


@pytest.fixture
def parameters():
    """Parameters of the template that differ from their defaults."""
    return {}


@pytest.fixture
def cloud(api, clock, token_json, parameters):
    with EmbeddedCloud(api, clock=clock, secret=token_json, parameters=parameters) as embedded:
        yield embedded


@pytest.fixture
def calls(monkeypatch):
    """Every call of every client that a function builds: service, operation and parameters."""
    recorded = []

    class RecordingSession(boto3.session.Session):
        def __init__(self):
            super().__init__()
            self.events.register("provide-client-params", self.record)

        def record(self, params, model, **_):
            recorded.append((model.service_model.service_name, model.name, params))

    monkeypatch.setattr("agent_log_capture.bootstrap.boto3.session.Session", RecordingSession)
    return recorded
