"""One outcome for each text, and the files in `events/outcomes/` that show how each is published.

`PYTHONPATH=src:. .venv/bin/python tests/unit/domain/notifications/samples.py` writes the files again.
"""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from agent_log_capture.domain.job import JobSummary
from agent_log_capture.domain.notifications import job_summary, notification
from agent_log_capture.domain.outcome import LogFile, Outcome, Reason, Status, Trigger, TriggerType

FOLDER = Path(__file__).parents[4] / "events" / "outcomes"
ASKED_AT = datetime(2026, 11, 23, 3, 12, 41, 31_000, tzinfo=UTC)
AT = datetime(2026, 11, 23, 3, 12, 41, 642_000, tzinfo=UTC)
AGENT = "8f135b4f-7a69-4b8a-947f-5e80d772fd97"
LOCATION = f"https://dfw.backup.api.rackspacecloud.com/v2/110011/agents/{AGENT}/logfiles/a533a845-4279-4838-af13-276114e90234"
OBJECT = (
    "https://storage101.dfw1.clouddrive.com/v1/MossoCloudFS_3f8a2c1e-5b7d-4e9f-8a6b-0c1d2e3f4a5b"
    f"/CloudBackupLogs/v2/{AGENT}/2026-11-23T03-12-41.606703Z.gz"
)
SIGNED = f"{OBJECT}?temp_url_sig={40 * '0'}"
SECRET = "the secret arn:aws:secretsmanager:us-east-1:123456789012:secret:TokenSecret-AbCdEf"

BY_ALARM = Trigger(
    TriggerType.ALARM,
    "arn:aws:cloudwatch:us-east-1:123456789012:alarm:backup-failed-web-01@2026-11-23T03:12:40.989+0000",
    "backup-failed-web-01",
)
BY_QUEUE = Trigger(TriggerType.SQS, "f9264353-28eb-4473-94f8-2f6ef39e228c")
BY_HAND = Trigger(TriggerType.MANUAL, "7be0b2a4-64a5-4e2c-b8a5-0d5e3b1f5c7e")
BY_EVENT = Trigger(TriggerType.EVENTBRIDGE, "6a7e8feb-b491-4cf7-a9f1-bf3703467718")
BY_SNS = Trigger(TriggerType.SNS, "22b80b92-fdea-4c2c-8f9d-bdfb0c7bf324")

LOG_FILE = LogFile(
    id="a533a845-4279-4838-af13-276114e90234",
    date="2026-11-23T03:12:41.606703Z",
    state="requested",
    location=LOCATION,
    links=({"rel": "self", "href": LOCATION},),
)
POLLED = replace(LOG_FILE, location=None)
STORED = replace(POLLED, state="completed", links=(*LOG_FILE.links, {"rel": "logfile", "href": OBJECT}))


def with_link(href):
    return replace(STORED, links=(*STORED.links, {"rel": "logfile_temp_url", "href": href}))


REQUESTED = Outcome(
    status=Status.REQUESTED,
    trigger=BY_HAND,
    asked_at=ASKED_AT,
    at=AT,
    agent_id=AGENT,
    project_id="110011",
    region="DFW",
    log_file=LOG_FILE,
    http_status=202,
    attempts=1,
)
WAITING = replace(
    REQUESTED,
    status=Status.WAITING,
    trigger=BY_ALARM,
    at=AT + timedelta(seconds=126),
    log_file=POLLED,
    reason=Reason.AGENT_OFFLINE,
    message="the agent is offline; its log file is polled until 2026-11-24 03:12 UTC",
    http_status=200,
)
CAPTURED = replace(
    REQUESTED,
    status=Status.CAPTURED,
    at=AT + timedelta(seconds=92),
    log_file=with_link(f"{SIGNED}&temp_url_expires=1795490052"),
    http_status=200,
)
EXPIRED = replace(
    WAITING,
    status=Status.EXPIRED,
    at=AT + timedelta(hours=24),
    reason=Reason.NOT_UPLOADED,
    message="not uploaded within 24 h; at the last poll its state was requested",
)
REJECTED = replace(
    REQUESTED,
    status=Status.REJECTED,
    trigger=BY_ALARM,
    log_file=None,
    reason=Reason.REFUSED,
    message="Agent not found.",
    http_status=404,
)
FAILED = replace(
    REJECTED,
    status=Status.FAILED,
    reason=Reason.TEMPORARY,
    message="Service Unavailable",
    http_status=503,
    attempts=192,
    at=ASKED_AT + timedelta(hours=24, minutes=4),
)
DUPLICATE = replace(
    REQUESTED,
    status=Status.DUPLICATE,
    trigger=BY_QUEUE,
    asked_at=AT,
    at=AT + timedelta(minutes=2),
    reason=Reason.COOL_DOWN,
    message="the log file was requested at 2026-11-23 03:12 UTC, for backup-failed-web-01",
    http_status=None,
)
UNREADABLE = Outcome(
    status=Status.REJECTED,
    trigger=BY_QUEUE,
    asked_at=ASKED_AT,
    at=ASKED_AT,
    reason=Reason.INVALID_AGENT_ID,
    message="agent_ids: an agent ID is 1 to 128 characters of A-Z a-z 0-9 _ -: 'web-01.example.com', 'db 02'",
)
JOB_DONE = JobSummary(
    job_id="night-shift-2026-11-23",
    revision=1,
    counts={Status.CAPTURED: 4812, Status.EXPIRED: 131, Status.REJECTED: 57},
    trigger=BY_QUEUE,
    asked_at=ASKED_AT,
    at=ASKED_AT + timedelta(hours=24, minutes=2, milliseconds=517),
)


def failed(reason, message, http_status=None):
    return replace(FAILED, reason=reason, message=message, http_status=http_status)


def unreadable(reason, message, trigger=BY_QUEUE):
    return replace(UNREADABLE, reason=reason, message=message, trigger=trigger)


SAMPLES = {
    "requested": REQUESTED,
    "waiting": WAITING,
    "captured": CAPTURED,
    "captured-without-link": replace(CAPTURED, log_file=STORED),
    "expired": EXPIRED,
    "rejected": REJECTED,
    "failed": FAILED,
    "duplicate": DUPLICATE,
    "unreadable": UNREADABLE,
}
# With a mail for each further text.
MAILS = SAMPLES | {
    "requested-by-an-alarm": replace(REQUESTED, trigger=BY_ALARM),
    "captured-for-an-alarm": replace(CAPTURED, trigger=BY_ALARM),
    "captured-expiry-unknown": replace(CAPTURED, trigger=BY_EVENT, log_file=with_link(SIGNED)),
    "expired-started": replace(
        EXPIRED,
        log_file=replace(POLLED, state="started"),
        message="not uploaded within 24 h; at the last poll its state was started",
    ),
    "expired-not-found": replace(
        EXPIRED,
        log_file=LogFile(id=LOG_FILE.id),
        message="not uploaded within 24 h; the last poll failed: Service Unavailable",
        http_status=503,
    ),
    "expired-gone": replace(
        EXPIRED,
        trigger=BY_QUEUE,
        at=AT + timedelta(minutes=2),
        log_file=LogFile(id=LOG_FILE.id),
        reason=Reason.GONE,
        message="the log file is gone",
        http_status=404,
    ),
    "rejected-400": replace(REJECTED, message="Validation failed. Name is required.", http_status=400),
    "rejected-403": replace(REJECTED, trigger=BY_SNS, message="Forbidden", http_status=403),
    "rejected-501": replace(REJECTED, trigger=BY_HAND, message="Not Implemented", http_status=501),
    "rejected-redirect": replace(
        REJECTED,
        trigger=BY_HAND,
        reason=Reason.REDIRECTED,
        message="a redirect is not followed: the token must not reach another host",
        http_status=302,
    ),
    "unreadable-alarm": unreadable(Reason.NO_AGENT_ID, "the event holds no agent ID", BY_ALARM),
    "unreadable-without-agent": unreadable(Reason.NO_AGENT_ID, "the event holds no agent ID", BY_EVENT),
    "unreadable-region": unreadable(
        Reason.INVALID_REGION, "region 'Dallas' is not one of DFW HKG IAD LON ORD SYD: 'web-01'"
    ),
    "unreadable-force": unreadable(Reason.INVALID_FORCE, "force 'perhaps' is not true or false: 'web-01'"),
    "unreadable-job": unreadable(
        Reason.INVALID_JOB, "job '' is not a line of 1 to 128 printable characters: 'web-01'"
    ),
    "unreadable-json": unreadable(
        Reason.INVALID_JSON, 'the text begins like JSON and is not JSON: \'{"agent_ids": ["web-01"\''
    ),
    "unreadable-too-deep": unreadable(Reason.TOO_DEEP, "deeper than 64 levels: not looked at below"),
    "unreadable-too-large": unreadable(Reason.TOO_LARGE, "more than 200,000 values came at once"),
    "failed-not-connected": failed(Reason.NOT_CONNECTED, "ConnectTimeout: dfw.backup.api.rackspacecloud.com:443"),
    "failed-unconfirmed": failed(Reason.UNCONFIRMED, "ReadTimeout: dfw.backup.api.rackspacecloud.com:443"),
    "failed-conflict": failed(Reason.CONFLICT, "Conflict", 409),
    "failed-token-refused": failed(
        Reason.TOKEN_REFUSED, f"{SECRET} holds a token that the API refuses; put another one"
    ),
    "failed-token-unavailable": failed(
        Reason.TOKEN_UNAVAILABLE, f"{SECRET} has no 'project_id', and CLOUD_BACKUP_PROJECT_ID is not set"
    ),
}


def bodies(message):
    """Return the texts by protocol that SNS chooses from."""
    return json.loads(message["Message"])


def files():
    """Return the content of each file in `events/outcomes/` by its path there."""
    messages = {name: notification.sns_message(outcome, has_chat=True) for name, outcome in MAILS.items()}
    messages["job-done"] = job_summary.sns_message(JOB_DONE, has_chat=True)
    content = {}
    for name, message in messages.items():
        texts = bodies(message)
        content[f"mails/{name}.txt"] = texts["email"]
        if name in SAMPLES or name == "job-done":
            shown = {
                "Subject": message["Subject"],
                "default": json.loads(texts["default"]),
                "MessageAttributes": message["MessageAttributes"],
            }
            content[f"{name}.json"] = json.dumps(shown, indent=2, ensure_ascii=False) + "\n"
            content[f"chat/{name}.json"] = json.dumps(json.loads(texts["https"]), indent=2, ensure_ascii=False) + "\n"
    return content


if __name__ == "__main__":
    for path, content in files().items():
        (FOLDER / path).write_text(content, encoding="utf-8")
