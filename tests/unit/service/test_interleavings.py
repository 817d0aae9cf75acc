"""Random interleavings of a few invocations over one table, with crashes, duplicates, lost responses and replays.

The invariants are those of the models that the table's rules were checked with: I1 no second log file within the
cool-down, I2 each capture has an outcome, I3 and I5 the last summary of a job adds up and agrees with the published
outcomes, I4 a revision has one set of counts, I6 no summary is counted while an agent is known to be pending.
"""

import json
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from datetime import timedelta
from itertools import count, product
from random import Random
from threading import Condition, Thread

import pytest
import requests
from botocore.awsrequest import AWSResponse

from agent_log_capture.adapters.capture_queue import CaptureQueue
from agent_log_capture.adapters.captures_table import CapturesTable
from agent_log_capture.adapters.cloud_backup import CloudBackup
from agent_log_capture.adapters.http_session import build_session
from agent_log_capture.adapters.outcome_topic import OutcomeTopic
from agent_log_capture.domain.outcome import FINAL_STATUSES, LogFile, Outcome, Status, Trigger, TriggerType
from agent_log_capture.domain.polling import PollPolicy
from agent_log_capture.domain.retry import RetryPolicy
from agent_log_capture.service import job_tracker

INSTANCES = 3
VISIBILITY_SECONDS = 1800
DAY_SECONDS = 86_400
AGENTS = ("one", "two", "gone")  # the API does not know the last
URL = "https://{region}.instance-%s.example"
ANY_URL = re.compile(r"https://dfw\.instance-(\d)\.example/v2/110011/agents/([^/]+)/logfiles(?:/(.+))?")
QUEUE, DEAD = "https://sqs/queue", "https://sqs/dead"
CONFLICTS = {"PutItem": "TransactionConflictException", "TransactWriteItems": "TransactionInProgressException"}


class Crash(BaseException):
    """The instance was killed: nothing of it runs on, and what it holds is delivered again."""


class Turns:
    """Lets one instance at a time go on, and changes to another at random."""

    def __init__(self, random):
        self.random = random
        self._running = []
        self._current = None
        self._changed = Condition()

    def start(self, numbers):
        self._running = list(numbers)
        self._current = self.random.choice(self._running)

    def wait(self, number):
        with self._changed:
            assert self._changed.wait_for(lambda: self._current == number, timeout=30)

    def change(self, number):
        with self._changed:
            if self.random.random() < 0.5:
                self._current = self.random.choice(self._running)
                self._changed.notify_all()
        self.wait(number)

    def end(self, number):
        with self._changed:
            self._running.remove(number)
            self._current = self.random.choice(self._running) if self._running else None
            self._changed.notify_all()


@dataclass
class Message:
    body: str
    message_id: str
    visible_at: object
    received_at: object = None

    def record(self):
        record = {"eventSource": "aws:sqs", "messageId": self.message_id, "body": self.body}
        if self.received_at:
            millis = int(self.received_at.timestamp() * 1000)
            record["attributes"] = {
                "ApproximateReceiveCount": "2",
                "ApproximateFirstReceiveTimestamp": str(millis),
            }
        return record


@dataclass
class World:
    """The queue, the topic and the API of one run, and what can still go wrong in it."""

    random: Random
    now: object
    faults: Counter
    queue: list = field(default_factory=list)
    dead: list = field(default_factory=list)
    log_files: dict = field(default_factory=lambda: defaultdict(list))
    published: list = field(default_factory=list)
    summaries: list = field(default_factory=list)
    pending: set = field(default_factory=set)
    broken: list = field(default_factory=list)  # a worker's own errors are handled by the service
    numbers: object = field(default_factory=count)

    def strikes(self, fault, chance=0.1):
        """Whether a fault happens now; each happens only so often."""
        if self.faults[fault] and self.random.random() < chance:
            self.faults[fault] -= 1
            return True
        return False

    def tick(self):
        self.now += timedelta(milliseconds=20)

    def send(self, body, delay_seconds=0, message_id=None):
        message_id = message_id or f"message-{next(self.numbers)}"
        self.queue.append(Message(body, message_id, self.now + timedelta(seconds=delay_seconds)))

    def publish(self, entries):
        for entry in entries:
            notification = json.loads(json.loads(entry["Message"])["default"])
            (self.summaries if notification["status"] == "job_done" else self.published).append(notification)


class Instance:
    """One instance of the function, with clients of its own: each of its calls may be its last."""

    def __init__(self, number, aws):
        self.number = number
        self.world = self.turns = None
        self.is_dead = False
        self._dies_after = False
        self._parameters = None
        self._pending = set()
        self.session = build_session(1)
        self.clients = {name: aws(name) for name in ("dynamodb", "sqs", "sns")}
        for name, client in self.clients.items():
            client.meta.events.register(f"provide-client-params.{name}", self._note)
            client.meta.events.register(f"before-call.{name}", self._before)
            client.meta.events.register(f"after-call.{name}", self._after)

    def begin(self, world, turns):
        self.world, self.turns = world, turns
        self.is_dead, self._dies_after, self._pending = False, False, set()

    def point(self):
        """A point at which another instance may go on, and this one may die."""
        if self.is_dead:
            raise Crash
        self.turns.change(self.number)
        self.world.tick()
        self._die_if(self.world.strikes("crash", 0.03))
        self._dies_after = self.world.strikes("crash", 0.03)

    def end_point(self):
        self._die_if(self._dies_after)

    def _die_if(self, condition):
        if condition:
            self.is_dead = True
            raise Crash

    def _note(self, params, **_):
        self._parameters = params

    def _before(self, model, **_):
        self.point()
        operation = model.name
        if operation in CONFLICTS and self.world.strikes("conflict"):
            raise self._error(CONFLICTS[operation], operation)
        if operation not in CONFLICTS and self.world.strikes("aws", 0.05):
            raise self._error("InternalServerError", operation)
        if operation == "PublishBatch":
            self.world.publish(self._parameters["PublishBatchRequestEntries"])
        elif operation == "SendMessageBatch":
            self._send()
        else:
            return None
        return AWSResponse("", 200, {}, None), {}

    def _error(self, code, operation):
        error = {"Error": {"Code": code, "Message": "once"}}
        return self.clients["dynamodb"].exceptions.from_code(code)(error, operation)

    def _send(self):
        for entry in self._parameters["Entries"]:
            if self._parameters["QueueUrl"] == QUEUE:
                self.world.send(entry["MessageBody"], entry["DelaySeconds"])
            else:
                self.world.dead.append(entry["MessageBody"])

    def _after(self, parsed, model, **_):
        is_served = "Error" not in parsed
        if is_served and model.name == "BatchWriteItem":
            [requests_] = self._parameters["RequestItems"].values()
            keys = [each["PutRequest"]["Item"] for each in requests_ if "PutRequest" in each]
            self._pending |= {_fact_key(key) for key in keys if key["sk"]["S"].endswith("#pending")}
        elif is_served and model.name == "UpdateItem" and self._parameters["Key"]["sk"]["S"] == "REPORT":
            self._check_pending()
        self.end_point()

    def _check_pending(self):
        """I6: what was noted as pending before a summary is counted is in it with a later status."""
        if "ConditionExpression" not in self._parameters:
            self.world.pending |= self._pending
        elif "#version" in self._parameters["ConditionExpression"]:
            for job, agent, replays in self.world.pending:
                if job == self._parameters["Key"]["pk"]["S"] and not self.world.has_fact(job, agent, replays):
                    self.world.broken.append(f"I6: a summary of {job} is counted while {agent} waits")


def _fact_key(item):
    job = item["pk"]["S"].rpartition("#")[0]
    region, agent_id, trigger, replays, _ = item["sk"]["S"].split("#")
    return job, (region, agent_id, trigger), int(replays)


class Api:
    """The Cloud Backup API, with responses that are lost."""

    def __init__(self, instances):
        self._instances = instances

    def __call__(self, request):
        number, agent_id, log_file_id = ANY_URL.fullmatch(request.url).groups()
        instance = self._instances[int(number)]
        instance.point()
        answer = self._answer(instance.world, request.method, agent_id, log_file_id)
        instance.end_point()
        if isinstance(answer, Exception):
            raise answer
        status, fields = answer
        return status, {}, json.dumps(fields)

    def _answer(self, world, method, agent_id, log_file_id):
        if world.strikes("busy", 0.15):
            return 503, {}
        if world.strikes("lost", 0.15):
            return requests.ReadTimeout("it was never served")
        answer = self._served(world, method, agent_id, log_file_id)
        return requests.ReadTimeout("it was served") if world.strikes("unanswered", 0.3) else answer

    def _served(self, world, method, agent_id, log_file_id):
        if agent_id == "gone":
            return 404, {"message": "Agent not found"}
        log_files = world.log_files[agent_id]
        if method == "POST":
            log_files.append({"id": f"log-{agent_id}-{len(log_files)}", "date": world.now.isoformat()})
            log_files[-1]["state"] = "started"
            if len(log_files) > 1:
                world.broken.append(f"I1: a second log file of {agent_id} within the cool-down")
            return 202, log_files[-1]
        if log_file_id is None:
            return 200, {"logfiles": log_files}
        [log_file] = [each for each in log_files if each["id"] == log_file_id]
        log_file["state"] = world.random.choice(["started", "completed"])
        return 200, log_file


@dataclass
class Asked:
    """What one trigger asks for."""

    message_id: str
    agents: list
    rejected: int
    job: str | None

    @property
    def job_id(self):
        return self.job or self.message_id

    def body(self):
        ids = [*self.agents, *(f"not@good-{number}" for number in range(self.rejected))]
        return json.dumps({"agent_ids": ids} | ({"job": self.job} if self.job else {}))


def asked_by(random):
    job = random.choice([None, "night", "night"])
    return [
        Asked(
            message_id=f"trigger-{number}",
            agents=random.sample(AGENTS, random.choice([1, 1, 2, 3])),
            rejected=random.choice([0, 0, 1]),
            job=job,
        )
        for number in range(random.choice([1, 2, 2, 3]))
    ]


class Simulation:
    """Delivers messages to the instances until nothing is left to deliver."""

    def __init__(self, world, instances, services):
        self.world = world
        self.turns = Turns(world.random)
        self.instances = instances
        self.services = services

    def run(self):
        for _ in range(300):
            self._redrive()
            if not self.world.queue:
                return
            due = self._due()
            numbers = range(min(len(due), self.world.random.choice([1, 2, 2, 3])))
            self._deliver([due[number :: len(numbers)] for number in numbers])
            assert not self.world.broken
        raise AssertionError("it does not end")

    def _redrive(self):
        world = self.world
        for body in list(world.dead):
            [capture] = json.loads(body).get("captures", [None])
            is_wanted = capture and (capture["phase"]["name"] == "recorded" or world.strikes("redrive", 0.5))
            if is_wanted:
                world.dead.remove(body)
                world.send(body)

    def _due(self):
        """Take the messages that are visible, at the time of the next one at least; some are delivered twice."""
        world = self.world
        world.now = max(world.now, min(message.visible_at for message in world.queue))
        due = [message for message in world.queue if message.visible_at <= world.now]
        world.random.shuffle(due)
        due = due[: world.random.choice([1, 2, 4])]
        world.queue = [message for message in world.queue if not any(message is each for each in due)]
        return due + [replace(message) for message in due if world.strikes("duplicate")]

    def _deliver(self, batches):
        for number in range(len(batches)):
            self.instances[number].begin(self.world, self.turns)
        self.turns.start(range(len(batches)))
        threads = [Thread(target=self._invoke, args=each) for each in enumerate(batches)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _invoke(self, number, messages):
        self.turns.wait(number)
        received_at = self.world.now
        try:
            event = {"Records": [message.record() for message in messages]}
            result = self.services[number].run(event, request_id="x", remaining_millis=lambda: 300_000)
            kept = [message for message in messages if message.message_id in result.unsaved]
        except Crash:
            kept = messages
        except BaseException as error:  # noqa: BLE001 (it ends a thread, and has to reach the test)
            self.world.broken.append(error)
            kept = []
        visible_at = received_at + timedelta(seconds=VISIBILITY_SECONDS)
        self.world.queue += [
            replace(message, visible_at=visible_at, received_at=message.received_at or received_at)
            for message in kept
        ]
        self.turns.end(number)


def replays_of(notification):
    """Return after how many replays an outcome was published, which only its ID depends on."""
    trigger = Trigger(TriggerType(notification["trigger"]["type"]), notification["trigger"]["id"])
    log_file = notification["logfile"]
    for replays in range(20):
        outcome = Outcome(
            status=Status(notification["status"]),
            trigger=trigger,
            asked_at=None,
            at=None,
            agent_id=notification["agent_id"],
            region=notification["region"],
            log_file=log_file and LogFile(id=log_file["id"]),
            replays=replays,
        )
        if outcome.outcome_id == notification["outcome_id"]:
            return replays
    raise AssertionError("an outcome ID that no capture has")


def check(world, asked, final):
    by_capture = defaultdict(lambda: defaultdict(set))
    for notification in world.published:
        if notification["agent_id"] and notification["status"] in final:
            key = notification["trigger"]["id"], notification["agent_id"]
            by_capture[key][replays_of(notification)].add(notification["status"])
            log_file = notification["logfile"]
            assert not log_file or log_file["id"] in {each["id"] for each in world.log_files[key[1]]}
    by_revision = defaultdict(list)
    for done in world.summaries:
        counts = {status.value: done[status.value] for status in FINAL_STATUSES if done[status.value]}
        by_revision[done["job_id"], done["revision"]].append((counts, done["outcome_id"]))
    assert all(each == found[0] for found in by_revision.values() for each in found), "I4"
    for job_id in {each.job_id for each in asked}:
        check_job(job_id, [each for each in asked if each.job_id == job_id], by_capture, by_revision)


def check_job(job_id, asked, by_capture, by_revision):
    choices = []
    for each in asked:
        for agent_id in each.agents:
            statuses = by_capture[each.message_id, agent_id]
            assert statuses, f"I2: {each.message_id} {agent_id} has no outcome"
            choices.append(statuses[max(statuses)])
    rejected = sum(each.rejected for each in asked)
    possible = [Counter(chosen) + Counter({"rejected": rejected}) for chosen in product(*choices)]
    revisions = [revision for job, revision in by_revision if job == job_id]
    assert revisions, f"I3: {job_id} has no summary"
    counts, _ = by_revision[job_id, max(revisions)][-1]
    assert Counter(counts) in possible, f"I3/I5: {counts}, of {possible}"


@pytest.fixture
def instances(aws, monkeypatch):
    monkeypatch.setattr(job_tracker, "JOBS_AT_ONCE", 1)  # with one thread at a time, a seed says all
    return [Instance(number, aws) for number in range(INSTANCES)]


@pytest.fixture
def simulate(*, capture_service, instances, dynamodb, wire, now):
    """Runs a simulation from a seed, with a table of its own."""
    for method in ("GET", "POST"):
        wire.add_callback(method, ANY_URL, Api(instances))

    def service_of(instance, world, table, *, window_seconds, deadline_seconds):
        clients = instance.clients
        return replace(
            capture_service,
            api=CloudBackup(instance.session, URL % instance.number, lambda: world.now),
            queue=CaptureQueue(clients["sqs"], QUEUE, DEAD),
            topic=OutcomeTopic(clients["sns"], "arn:aws:sns:us-east-1:123456789012:OutcomeTopic"),
            table=CapturesTable(
                client=clients["dynamodb"],
                table=table,
                keep=timedelta(days=20),
                now=lambda: world.now,
                wait=lambda _: None,
            ),
            retries=RetryPolicy(window_seconds=window_seconds, random=world.random.random),
            polls=PollPolicy(deadline_seconds=deadline_seconds, grace_seconds=0),
            cool_down=timedelta(days=1),
            now=lambda: world.now,
        )

    def simulate(seed):
        random = Random(seed)
        world = World(random=random, now=now, faults=Counter(random.choice(FAULTS)))
        table = f"table-{seed}"
        dynamodb.create_table(
            TableName=table,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
        )
        world.has_fact = lambda *key: has_fact(dynamodb, table, *key)
        deadline_seconds = random.choice([0, DAY_SECONDS])
        policies = {"window_seconds": random.choice([0, DAY_SECONDS]), "deadline_seconds": deadline_seconds}
        services = [service_of(instance, world, table, **policies) for instance in instances]
        asked = asked_by(random)
        for each in asked:
            world.send(each.body(), message_id=each.message_id)
        Simulation(world, instances, services).run()
        final = {status.value for status in FINAL_STATUSES if not (deadline_seconds and status is Status.REQUESTED)}
        check(world, asked, final)
        return world

    return simulate


FAULTS = [
    {"crash": 1, "duplicate": 1, "redrive": 2},
    {"crash": 2, "unanswered": 1, "lost": 1, "conflict": 1},
    {"duplicate": 2, "unanswered": 1, "busy": 2, "redrive": 3},
    {"crash": 3, "duplicate": 2, "unanswered": 2, "busy": 2, "aws": 3, "conflict": 2, "redrive": 3},
    {"aws": 3, "busy": 3, "redrive": 3, "duplicate": 1},
]


def has_fact(dynamodb, table, job, agent, replays):
    """Whether an agent has a final status after as many replays at least."""
    items = dynamodb.scan(TableName=table)["Items"]
    return any(
        key[:2] == (job, agent) and key[2] >= replays and not item["sk"]["S"].endswith("#pending")
        for item in items
        if item["pk"]["S"].count("#") == 2 and item["pk"]["S"].startswith("JOB#")
        for key in [_fact_key(item)]
    )


# The last seed finds a claim that is released although its request may have been served.
@pytest.mark.parametrize("seed", [*range(10), 23])
def test_no_interleaving_breaks_an_invariant(simulate, seed):
    assert simulate(seed).published
