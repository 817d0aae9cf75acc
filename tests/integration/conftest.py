import json
from collections import defaultdict
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial
from pathlib import Path
from traceback import walk_stack

import boto3
import pytest

from agent_log_capture import bootstrap
from agent_log_capture.domain.events.parser import EventParser
from local.clock import Clock
from local.cloud import EmbeddedCloud
from tests.faults.faulty_api import FaultyApi

EVENTS = Path(__file__).resolve().parents[2] / "events"
SRC = Path(bootstrap.__file__).parent
BUILDERS = {"CaptureFunction": "capture_function", "RotateTokenFunction": "token_rotation"}


@pytest.fixture
def samples():
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in EVENTS.glob("*.json")}


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def api(clock, samples):
    """The fake API, with every agent that a sample names."""
    with FaultyApi(clock=clock.time) as fake_api:
        for event in samples.values():
            for parsed in EventParser(default_region="DFW").parse(event, request_id="request", now=clock.now()):
                fake_api.add_agents(*(capture.agent_id for capture in parsed.captures))
        yield fake_api


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


@pytest.fixture(scope="session")
def record_calls():
    """Records, in a `with` block, every AWS call of each function: service, operation and the request that is sent.

    A function is anything that bootstrap builds for it. Under None are the calls with a client that bootstrap
    did not build.
    """
    return _record_calls


@contextmanager
def _record_calls():
    recorded = defaultdict(list)
    function_being_built = ContextVar("function_being_built", default=None)
    build_client = boto3.session.Session.client

    def client(session, *args, **options):
        made = build_client(session, *args, **options)
        made.meta.events.register("before-call", partial(record, function_being_built.get()))
        return made

    def record(function, model, params, **_):
        if function or _is_called_from_src():
            recorded[function].append((model.service_model.service_name, model.name, params))

    def built_as(function, build):
        @cache
        def built():
            token = function_being_built.set(function)
            try:
                return build.__wrapped__()
            finally:
                function_being_built.reset(token)

        return built

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(boto3.session.Session, "client", client)
        for function, name in BUILDERS.items():
            patch.setattr(bootstrap, name, built_as(function, getattr(bootstrap, name)))
        yield recorded


def _is_called_from_src():
    """Whether a function's code is at work here: the workers' threads have it on their stack as well."""
    return any(SRC in Path(frame.f_code.co_filename).parents for frame, _ in walk_stack(None))
