"""One run: a fleet is asked while everything fails that can, then the faults stop, and the time passes."""

import contextlib
import copy
import itertools
import json
import random
import threading
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from math import inf
from types import SimpleNamespace
from unittest.mock import patch

import boto3

from agent_log_capture import bootstrap
from agent_log_capture.adapters import captures_table, http_session
from agent_log_capture.adapters.batches import send_in_batches
from agent_log_capture.domain.capture import Recorded
from agent_log_capture.domain.events.envelopes import is_sqs_event
from agent_log_capture.domain.events.parser import EventParser
from agent_log_capture.domain.notifications.job_summary import JOB_DONE
from agent_log_capture.service import job_tracker
from local.clock import Clock
from local.cloud import EmbeddedCloud, Interference
from local.lambda_service import EventSourceMapping
from tests.faults import fault_schedule
from tests.faults.checks import key_of_notification, places
from tests.faults.faulty_api import FaultyApi
from tests.faults.record import Ended, Key, Letter, Published, Record
from tests.faults.sandbox import Sandbox, agent_of_thread, instrumented
from tests.faults.transports import (
    CALL_SECONDS,
    READ_SECONDS,
    ApiFaults,
    ApiTransport,
    AwsTransport,
    moto_in_process,
    no_sleep,
)

_READER = EventParser(default_region="DFW")
_NOMINAL_SECONDS = 300
_LIMITS = {"CALL_SECONDS": CALL_SECONDS, "SAVING_SECONDS": 0.3, "_CHECK_SECONDS": 0.05}
# With less than that an invocation is an error from the start.
_LEAST_SECONDS = _LIMITS["CALL_SECONDS"] + _LIMITS["SAVING_SECONDS"] + 0.05
_PATIENCE_SECONDS = 10
_STEP_SECONDS = (5, 20, 60, 60, 300, 900)
# At first as far apart as the status of an agent can be known.
_DRAIN_STEPS_SECONDS = (*(100,) * 8, *(900,) * 1000)
_FOREVER_SECONDS = 10**8


@dataclass(frozen=True, slots=True)
class Trigger:
    """What asks for captures: by which source, which agents, and values that are no agent IDs."""

    source: str
    agents: tuple[str, ...]
    refused: tuple[str, ...]
    is_forced: bool
    is_twice: bool
    job: str | None


class Plan:
    """All that the seed decides before the run begins."""

    def __init__(self, seed):
        self.seed = seed
        dice = self.dice = random.Random(seed)
        self.agents = [f"s{seed}-{number:03}" for number in range(dice.choice((1, 5, 30, 60, 80, 100, 100)))]
        self.is_rotated = dice.random() < 0.4
        self.has_token = dice.random() < 0.9
        self.deadline_seconds = dice.choice((0, 600, 1800, 4 * 3600))
        self.cool_down_seconds = dice.choice((0, 600, 600, 3600))
        self.parameters = {
            "CaptureDeadlineSeconds": str(self.deadline_seconds),
            "CoolDownSeconds": str(self.cool_down_seconds),
            "RetryWindowSeconds": str(dice.choice((60, 900, 3600, 4 * 3600))),
            "Concurrency": str(dice.choice((1, 1, 2, 4, 8, 32))),
            "RotateToken": "true" if self.is_rotated else "false",
        }
        # Dice of their own: what was found before there were jobs is found again by its seed.
        self.jobs_dice = random.Random(f"{seed} jobs")
        self.steps = dice.randint(3, 20)
        self.step_seconds = [dice.choice(_STEP_SECONDS) for _ in range(self.steps)]
        self.kill_rate = dice.choice((0, 0, 0.05, 0.15))
        self.haste_rate = dice.choice((0, 0, 0.1, 0.3))
        self.doubling_rate = dice.choice((0, 0, 0.03, 0.1))
        self.token_failure_rate = dice.choice((0, 0, 0.05, 0.15))
        self.triggers = self._draw_triggers()

    def _draw_triggers(self):
        """Name every agent once, and some of them again."""
        dice = self.dice
        left = list(self.agents)
        triggers = []
        while left:
            size = dice.choice((1, 5, 20, 100))
            again = dice.sample(self.agents, min(len(self.agents), dice.choice((0, 0, 1, 5))))
            named = (*dict.fromkeys([*left[:size], *again]),)
            left = left[size:]
            number = len(triggers)
            refused = tuple(f"no!id!{self.seed}!{number}!{item}!" for item in range(dice.choice((0, 0, 0, 1, 3))))
            source = dice.choice(("list", "list", "json", "alarm", "request", "direct"))
            is_twice = source in {"alarm", "request"} and dice.random() < self.doubling_rate
            job = self.jobs_dice.choice((None, None, f"s{self.seed} night")) if source != "list" else None
            triggers.append(Trigger(source, named, refused, dice.random() < 0.1, is_twice, job))
        return [(dice.randrange(max(1, self.steps // 2)), trigger) for trigger in triggers]


@dataclass(frozen=True, slots=True, kw_only=True)
class UnreliableMapping(EventSourceMapping):
    """Delivers late, out of order and more than once."""

    run: "Run"

    def receive(self):
        """Take a batch of any size, in any order; now and then with a message in it twice."""
        run = self.run
        size = run.dice.choice((1, 5, self.batch_size, self.batch_size)) if run.is_stormy else self.batch_size
        plain = EventSourceMapping(sqs=self.sqs, queue_url=self.queue_url, queue_arn=self.queue_arn, batch_size=size)
        messages = list(plain.receive())
        if run.is_stormy:
            run.dice.shuffle(messages)
            messages += [message for message in messages if run.is_doubled("queue: twice in a batch", message)]
        run.note_delivered(messages)
        return messages

    def delete(self, messages):
        """Delete messages; now and then one stays, or comes once more afterwards."""
        run = self.run
        staying = [message for message in messages if run.is_doubled("queue: not deleted", message)]
        again = [message for message in messages if run.is_doubled("queue: again after it was deleted", message)]
        copies = run.copies(again)
        plain = EventSourceMapping(
            sqs=self.sqs, queue_url=self.queue_url, queue_arn=self.queue_arn, batch_size=self.batch_size
        )
        going = {message["ReceiptHandle"]: message for message in messages if message not in staying}
        plain.delete(list(going.values()))
        for item in copies:  # SQS delivers at least once
            item.visible_at = 0.0
            item.delay(run.dice.choice((0, 30, 600)))
            run.cloud.moto_queue.add_message(item)


class Run:
    """One run of the campaign; `go` returns what is left of it."""

    def __init__(self, seed):
        self.plan = Plan(seed)
        self.dice = self.plan.dice
        # Only the run advances this clock, so that a run can be repeated.
        self.clock = Clock(factor=0)
        # One o'clock UTC: at which hours Secrets Manager rotates is not to depend on when the seed is run.
        self.clock.advance(25 * 3600 - self.clock.time() % 86_400)
        self.is_stormy = True
        self.schedule = fault_schedule.FaultSchedule(seed, self.clock, [])
        self.record = Record(
            seed=seed,
            is_followed=self.plan.deadline_seconds > 0,
            cool_down_seconds=self.plan.cool_down_seconds,
            is_table_sound=True,
            jobs={},
        )
        self._deliveries = Counter()
        self._jittered = Counter()
        self._token = None
        self._ended = set()
        self.sandbox = Sandbox(self._draw_end, self._note_begin)
        self.api_wire = ApiTransport(self.schedule, self.clock, self._say)

    def go(self):
        """Do it."""
        with self._set_up():
            self._storm()
            self._calm()
            self._drain()
            self._conclude()
        return self.record

    @contextlib.contextmanager
    def _set_up(self):
        plan = self.plan
        with ExitStack() as exits:
            exits.enter_context(_limits())
            exits.enter_context(instrumented())
            exits.enter_context(patch.object(bootstrap, "random", SimpleNamespace(random=self._jitter)))
            exits.enter_context(self.api_wire.laid())
            self.api = exits.enter_context(
                FaultyApi(clock=self.clock.time, pick_up_seconds=self.dice.choice((0, 30, 400)))
            )
            self.api.add_account("operator", "the-api-key")
            self._add_agents()
            self.cloud = exits.enter_context(
                EmbeddedCloud(
                    self.api,
                    clock=self.clock,
                    secret=self._secret(),
                    parameters=plan.parameters,
                    interference=Interference(
                        moto=moto_in_process(AwsTransport(self.schedule, self._note_unknown, self._say)),
                        around=self.sandbox,
                        mapping=lambda **options: UnreliableMapping(**options, run=self),
                    ),
                )
            )
            if plan.is_rotated and plan.has_token:
                self.cloud.rotate_secret()
            self.api.faults = ApiFaults(self.schedule)
            seconds = sum(plan.step_seconds)
            self.schedule._spells = fault_schedule.draw_spells(self.dice, self.clock.time(), seconds)  # noqa: SLF001
            yield

    def _add_agents(self):
        for agent_id in self.plan.agents:
            fate = self.dice.random()
            if fate > 0.03:
                self.api.add_agents(agent_id, online=fate > 0.15, forbidden=fate < 0.06)
            if fate <= 0.15:
                self.record.offline.add(agent_id)

    def _secret(self):
        if self.plan.is_rotated:
            return json.dumps({"username": "operator", "api_key": "the-api-key"})
        return self._new_token() if self.plan.has_token else None

    def _new_token(self):
        self._token = self.api.issue_token(lives_seconds=self.dice.choice((600, 7200, _FOREVER_SECONDS)))
        return json.dumps({"token": self._token, "project_id": self.api.project_id})

    def _storm(self):
        for step, seconds in enumerate(self.plan.step_seconds):
            for when, trigger in self.plan.triggers:
                if when == step:
                    self._pull(trigger)
            self._happen()
            for _ in range(self.dice.randint(1, 3)):
                self._poll()
            self.clock.advance(seconds)

    def _poll(self):
        delivered = self.cloud.poll()
        # Requests that a client no longer waits for are served before time passes for everybody else.
        self.api.wait_until_served(_PATIENCE_SECONDS)
        self._look_round()
        return delivered

    def _happen(self):
        """Let agents come and go, and the token go and come."""
        dice = self.dice
        known = [agent_id for agent_id in self.plan.agents if agent_id in self.api._agents]  # noqa: SLF001
        for agent_id in dice.sample(known, min(len(known), dice.choice((0, 0, 1, 3)))):
            is_online = dice.random() < 0.7
            self.api.set_online(agent_id, online=is_online)
            if not is_online:
                self.record.offline.add(agent_id)
        if known and dice.random() < 0.03:
            agent_id = dice.choice(known)
            self.api.add_agents(agent_id)
            self.record.forgotten[agent_id] += 1
            self._say(f"log files of {agent_id} are deleted")
        if dice.random() < self.plan.token_failure_rate:
            self._failure_token()
        elif not self.plan.is_rotated and dice.random() < 0.1:
            self._put_token()

    def _failure_token(self):
        try:
            secret = json.loads(
                boto3.client("secretsmanager").get_secret_value(SecretId=self.cloud.secret_arn)["SecretString"]
            )
        except Exception:  # noqa: BLE001 (there is none yet)
            return
        if token := secret.get("token"):
            self.api.revoke(token)
            self.schedule.count("token", "revoked")
            self._say("the token is revoked")

    def _put_token(self):
        boto3.client("secretsmanager").put_secret_value(
            SecretId=self.cloud.secret_arn, SecretString=self._new_token()
        )
        self._say("a person puts a new token")

    def _pull(self, trigger):
        trigger_type, trigger_id = self._send(trigger)
        keys = {Key(trigger_type, trigger_id, agent_id) for agent_id in trigger.agents}
        self.record.keys |= keys
        if trigger.job:
            self.record.jobs[trigger_type, trigger_id] = trigger.job
        self.record.refused |= {Key(trigger_type, trigger_id, value) for value in trigger.refused}
        if trigger.is_twice:
            self.schedule.count("event", "sent twice")
            self.record.double(keys, "sent twice")
        if trigger.is_forced and trigger.source != "list":
            self.record.forced |= set(trigger.agents)
        self._say(f"{trigger.source} {trigger_type} {trigger_id} names {len(keys)}: {' '.join(trigger.agents)}")

    def _send(self, trigger):
        content = {"agent_ids": [*trigger.agents, *trigger.refused]}
        if trigger.is_forced:
            content["force"] = True
        if trigger.job:
            content["job"] = trigger.job
        match trigger.source:
            case "list":
                return "sqs", self.cloud.send("\n".join(content["agent_ids"]))
            case "json":
                return "sqs", self.cloud.send(json.dumps(content))
            case "direct":
                return "manual", self.cloud.invoke_asynchronously(content)
            case "request":
                event = {"source": "ops", "detail-type": "Agent Log Capture Requested", "detail": content}
                return "eventbridge", self._put_event(event, trigger)
        event = _alarm(f"backup-{len(self.record.keys)}", content, self.clock.now())
        self._put_event(event, trigger)
        return "alarm", f"{event['resources'][0]}@{event['detail']['state']['timestamp']}"

    def _put_event(self, event, trigger):
        event_id = self.cloud.put_event(event)
        if trigger.is_twice and event["source"] == "aws.cloudwatch":
            self.cloud.put_event(event)
        return event_id

    def _calm(self):
        self._say("the faults stop")
        self.is_stormy = False
        self.schedule.calm()
        self.api.hurry()
        if not self.plan.is_rotated:
            self._put_token()  # otherwise the function asks for what it needs
        if self._token:
            # Long-lived from here on: who keeps it is not what the end is about.
            self.api._tokens[self._token] = inf  # noqa: SLF001

    def _drain(self):
        rounds = 60 + (self.plan.deadline_seconds + int(self.plan.parameters["RetryWindowSeconds"])) // 300
        for seconds in itertools.islice(_DRAIN_STEPS_SECONDS, rounds):
            for _ in range(100):
                if not self._poll():
                    break
            if not self.cloud.waiting:
                return
            self.clock.advance(seconds)

    def _conclude(self):
        for thread in threading.enumerate():
            if getattr(thread, "invocation", None):
                thread.join(_PATIENCE_SECONDS)
        record = self.record
        record.notifications += self.cloud.notifications()
        record.sums += self.cloud.sums()
        record.letters = [self._letter(message) for message in self.cloud.dead_letters()]
        record.left = [message.body for message in self.cloud.messages]
        record.posts = self.api_wire.posts
        record.asked, record.made = self.api.asked, self.api.posts
        record.faults = self.schedule.counts
        record.is_table_sound = not any(kind.startswith("dynamodb") for kind in record.faults)
        record.invocations = [self._ended_as(item) for item in self.sandbox.invocations]
        for ended in record.invocations:
            if ended.why_dead:
                kind = "by its timeout" if ended.why_dead == "by its timeout" else "at a line or call"
                record.faults[f"killed: {kind}"] += 1

    # ------------------------------------------------------------ what the run is published

    def _draw_end(self, invocation, seconds):
        """Draw after how many lines, calls and seconds an invocation is killed."""
        dice = random.Random(f"{self.plan.seed} end {invocation.number}")
        if not self.is_stormy:
            return inf, inf, seconds
        if dice.random() < self.plan.kill_rate:
            count = round(10 ** (dice.random() * 4.3))
            return (count, inf, seconds) if dice.random() < 0.6 else (inf, min(count, 1 + count // 20), seconds)
        if dice.random() < self.plan.haste_rate:
            return inf, inf, _LEAST_SECONDS + dice.choice((0.5, 2)) * dice.random()
        return inf, inf, seconds

    def _jitter(self):
        """Take the place of the function's own dice: what falls for an agent does not depend on the others."""
        agent_id = agent_of_thread()
        self._jittered[agent_id] += 1
        return random.Random(f"{self.plan.seed} jitter {agent_id} {self._jittered[agent_id]}").random()

    def _note_begin(self, invocation):
        self._say(f"invocation {invocation.number} of {invocation.function}")

    def _note_unknown(self, sent):
        for text in sent:
            content = json.loads(text)
            if content.get("status") == JOB_DONE:
                continue
            keys = [key_of_notification(content)] if "outcome_id" in content else _keys(_message_event(text, "?"))
            self.record.double(keys, "answer lost")

    def is_doubled(self, kind, message):
        """Draw whether a message is delivered once more than it should be."""
        if not self.is_stormy or self.dice.random() >= self.plan.doubling_rate:
            return False
        self.schedule.count(*kind.split(": "))
        self.record.double(_keys(_message_event(message["Body"], message["MessageId"])), kind)
        return True

    def note_delivered(self, messages):
        """Count the deliveries of messages."""
        self._deliveries.update(message["MessageId"] for message in messages)

    def copies(self, messages):
        """Return copies of messages that are about to be deleted."""
        wanted = {message["MessageId"] for message in messages}
        copies = []
        for message in self.cloud.messages:
            if message.id in wanted:
                item = copy.copy(message)
                item.receipt_handle, item._old_receipt_handles = None, []  # noqa: SLF001
                item.approximate_receive_count = self.dice.choice((0, item.approximate_receive_count))
                copies.append(item)
        return copies

    def _look_round(self):
        """See whether something is in two places now."""
        self._settle_doublings()
        new = self.cloud.notifications()
        self.record.notifications += new
        for done in (sums := self.cloud.sums()):
            self._say(f"published job_done {done['job_id']} revision {done['revision']}: {done['message']}")
        self.record.sums += sums
        for each in new:
            self._say(f"published {each['status']} {each['reason'] or ''} {each['agent_id']} {each['trigger']['id']}")
        self._ended |= {
            key_of_notification(notification) for notification in new if notification["status"] in self.record.endings
        }
        waiting = Counter(
            key for message in self.cloud.messages for key in _keys(_message_event(message.body, message.id))
        )
        self.record.in_two_places += places(waiting, self._ended, self.record.doubled)

    def _settle_doublings(self):
        """Note what the last invocations have left to be brought again beside what they have requeued."""
        for invocation in self.sandbox.invocations[self._settled :]:
            keys = _keys(invocation.event, invocation.request_id)
            unsaved = getattr(invocation.report, "unsaved", {})
            if invocation.is_dead or invocation.error or None in unsaved:
                self.record.double(keys, "killed" if invocation.is_dead else "not saved")
            elif unsaved:
                for item in invocation.event["Records"]:
                    if item["messageId"] in unsaved:
                        self.record.double(_keys({"Records": [item]}), "not saved")
            outcome = invocation.why_dead or invocation.error or getattr(invocation.report, "counts", "")
            self._say(f"invocation {invocation.number} ended: {outcome} {unsaved or ''}")
        self._settled = len(self.sandbox.invocations)

    _settled = 0

    def _say(self, text):
        self.record.history.append(f"{self.clock.now():%H:%M:%S} {text}")

    def _letter(self, message):
        body = message["Body"]
        attributes = message.get("MessageAttributes", {})
        content = json.loads(body) if body.startswith("{") else {}
        return Letter(
            keys=frozenset(_keys(_message_event(body, message["MessageId"]))),
            uncounted=frozenset(_keys(_message_event(body, message["MessageId"]), has_ended=True)),
            text=body,
            reason=attributes.get("reason", {}).get("StringValue"),
            is_wrapped="requestPayload" in content,
            deliveries=self._deliveries[message["MessageId"]],
        )

    def _ended_as(self, invocation):
        report = invocation.report
        error = invocation.error
        return Ended(
            number=invocation.number,
            keys=frozenset(_keys(invocation.event, invocation.request_id)),
            is_from_queue=is_sqs_event(invocation.event),
            why_dead=invocation.why_dead,
            is_hung=invocation.is_hung,
            error=f"{type(error).__name__}: {error}" if error and invocation.function == "CaptureFunction" else None,
            asked=report.asked if report else None,
            counted=sum(report.counts.values()) if report else None,
            published=tuple(_published(outcome) for outcome in report.outcomes) if report else (),
            acted_after_end=tuple(invocation.acted_after_end),
        )


@contextlib.contextmanager
def _limits():
    """Shorten what is waited for in earnest."""
    with ExitStack() as exits:
        for name in ("CONNECT_TIMEOUT_SECONDS", "READ_TIMEOUT_SECONDS"):
            exits.enter_context(patch.object(http_session, name, READ_SECONDS))
        with contextlib.suppress(ImportError):
            from agent_log_capture.service import worker_pool  # noqa: PLC0415

            for name, seconds in _LIMITS.items():
                exits.enter_context(patch.object(worker_pool, name, seconds))
        exits.enter_context(patch.dict(send_in_batches.__kwdefaults__, {"pause": no_sleep}))
        exits.enter_context(patch("botocore.endpoint.time", SimpleNamespace(sleep=no_sleep)))
        exits.enter_context(patch.object(captures_table, "time", SimpleNamespace(sleep=no_sleep)))
        # One after the other: which of them a fault hits must follow from the seed.
        exits.enter_context(patch.object(job_tracker, "JOBS_AT_ONCE", 1))
        yield


def _alarm(name, content, now):
    return {
        "source": "aws.cloudwatch",
        "detail-type": "CloudWatch Alarm State Change",
        "resources": [f"arn:aws:cloudwatch:us-east-1:123456789012:alarm:{name}"],
        "detail": {
            "alarmName": name,
            "state": {"value": "ALARM", "timestamp": now.isoformat()},
            "configuration": {"description": json.dumps(content)},
        },
    }


def _message_event(body, message_id):
    return {"Records": [{"eventSource": "aws:sqs", "messageId": message_id, "body": body}]}


def _keys(event, request_id="?", *, has_ended=False):
    """Return the captures that an event asks for; those that `has_ended` wait only to be counted."""
    parsed_records = _READER.parse(event, request_id=request_id, now=datetime.now(UTC) + timedelta(days=365))
    captures = [
        item for parsed in parsed_records for item in parsed.captures if isinstance(item.phase, Recorded) is has_ended
    ]
    return [Key(capture.trigger.type.value, capture.trigger.id, capture.agent_id) for capture in captures]


def _published(outcome):
    trigger = outcome.trigger
    key = Key(trigger.type.value, trigger.id, outcome.agent_id or "")
    return Published(key=key, status=outcome.status.value, outcome_id=outcome.outcome_id)
