import json
import os
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from agent_log_capture.domain.events.parser import EventParser
from agent_log_capture.handlers import capture, rotate_token
from local.build import build
from local.clock import Clock
from local.cloud import EmbeddedCloud
from local.emulator import Emulator
from local.template import translate
from tests.faults.faulty_api import FaultyApi

EVENTS = Path(__file__).resolve().parents[2] / "events"
HANDLERS = {"CaptureFunction": capture, "RotateTokenFunction": rotate_token}


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """What `sam build` has packed: a folder for each function."""
    folder = tmp_path_factory.mktemp("sam") / "build"
    build(folder)
    return folder


@pytest.fixture(scope="session")
def samples():
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in sorted(EVENTS.glob("*.json"))}


@pytest.fixture(scope="session")
def embed(samples):
    """Embeds the cloud, in a `with` block: with every agent that a sample names, and a token or what gets one."""

    @contextmanager
    def embed(secret=None):
        clock = Clock()
        with FaultyApi(clock=clock.time) as api:
            api.add_account("operator", "the-api-key")
            for event in samples.values():
                for parsed in EventParser(default_region="DFW").parse(event, request_id="request", now=clock.now()):
                    api.add_agents(*(each.agent_id for each in parsed.captures))
            token = {"token": api.issue_token(lives_seconds=10**7), "project_id": api.project_id}
            with EmbeddedCloud(api, clock=clock, secret=json.dumps(secret or token)) as cloud:
                yield api, clock, cloud

    return embed


def emulator_of(function, build):
    """The emulator of a function that was packed into a folder of `build`, in the environment of this process."""
    properties = translate()["Resources"][function]["Properties"]
    names = [*properties["Environment"]["Variables"], "AWS_ENDPOINT_URL"]
    return Emulator(
        artifact=build / function,
        handler=properties["Handler"],
        environment={name: os.environ[name] for name in names},
        timeout_seconds=properties["Timeout"],
    )


@pytest.fixture(scope="session")
def emulate(built):
    """Puts both functions in the emulator in place of those in the process, in a `with` block."""

    @contextmanager
    def emulate():
        with ExitStack() as exits, pytest.MonkeyPatch.context() as patch:
            running = {}

            def invoke(function, event):
                # Not before: the cloud has its addresses by now.
                if function not in running:
                    running[function] = exits.enter_context(emulator_of(function, built))
                return running[function].invoke(event)

            for function, module in HANDLERS.items():
                patch.setattr(module, "lambda_handler", lambda event, _, name=function: invoke(name, event))
            yield running

    return emulate
