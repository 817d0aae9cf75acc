"""`status`: how much waits, what was given up, and whether there is a token."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

from botocore.exceptions import ClientError

from agent_log_capture.domain.auth_token import TokenFormatError, parse_auth_token
from ops import dead_letters
from ops.errors import NEEDS_A_PERSON, WELL, code_of, is_denied
from ops.stack import Stack

# As the alarm queue-age has it: template.yaml says why.
TOO_OLD = timedelta(seconds=3000)
_METRIC_WINDOW = timedelta(minutes=15)  # SQS tells CloudWatch every five minutes


def status(stack: Stack, *, now: datetime) -> int:
    """Say it; return NEEDS_A_PERSON when something does."""
    url = stack.output("CaptureQueueUrl")
    letters = dead_letters.look(stack.sqs, stack.output("CaptureDeadLetterQueueUrl"))
    age = _oldest(stack, url.rsplit("/", 1)[1], now)
    print(f"{stack.name} in {stack.region}\n")
    counted = ", ".join(f"{count:,} {state}" for state, count in dead_letters.depths(stack.sqs, url).items())
    print(f"CaptureQueue   {counted}; oldest message: {'not known' if age is None else age}")
    print(f"dead letters   {letters.total:,}", *letters.lines(), sep="\n")
    token, token_failure = _token(stack, now)
    print(f"token          {token}")
    troubles = [*_queue_troubles(age, letters.total), *([token_failure] if token_failure else [])]
    print("\nNeeds a person:" if troubles else "\nAll is well.")
    for failure in troubles:
        print(f"  - {failure}")
    return NEEDS_A_PERSON if troubles else WELL


def _queue_troubles(age: timedelta | None, letters: int) -> Iterator[str]:
    if age is not None and age > TOO_OLD:
        yield "messages are not read from CaptureQueue: see make logs, and whether the function is throttled"
    if letters:
        yield "dead letters: fix what the reasons say, then make replay"


def _oldest(stack: Stack, queue_name: str, now: datetime) -> timedelta | None:
    """Return the age of the oldest message as CloudWatch was told last; None when it was not."""
    points = stack.client("cloudwatch").get_metric_statistics(
        Namespace="AWS/SQS",
        MetricName="ApproximateAgeOfOldestMessage",
        Dimensions=[{"Name": "QueueName", "Value": queue_name}],
        StartTime=now - _METRIC_WINDOW,
        EndTime=now + timedelta(minutes=1),
        Period=60,
        Statistics=["Maximum"],
    )["Datapoints"]
    newest = max(points, key=lambda point: point["Timestamp"], default=None)
    return None if newest is None else timedelta(seconds=round(newest["Maximum"]))


def _token(stack: Stack, now: datetime) -> tuple[str, str | None]:
    """Return what is known of the token, and what is wrong with it; never the token."""
    arn = stack.output("TokenSecretArn")
    known = stack.secrets.describe_secret(SecretId=arn)
    changed = _since(known)
    try:
        secret = stack.secrets.get_secret_value(SecretId=arn).get("SecretString")
        parse_auth_token(secret, stack.parameters.get("CloudBackupProjectId") or None)
    except ClientError as error:
        if is_denied(error):
            return f"may not be read by you; {changed}", None
        if code_of(error) != "ResourceNotFoundException":
            raise
        return "none", _put("the secret has no value")
    except TokenFormatError as error:
        return f"none; {changed}", _put(f"the secret {error}")
    return _expiry(secret, changed, now)


def _put(what: str) -> str:
    return f"{what}: put the token, or credentials and start the rotation (README, Deploy)"


def _since(described: Mapping[str, object]) -> str:
    rotated, changed = described.get("LastRotatedDate"), described.get("LastChangedDate")
    if isinstance(rotated, datetime):
        return f"last rotated {_shown(rotated)}"
    return f"last changed {_shown(changed)}" if isinstance(changed, datetime) else "never changed"


def _expiry(secret: str | None, changed: str, now: datetime) -> tuple[str, str | None]:
    expires_at = _expires_at(secret or "")
    if expires_at is None:
        return f"there; the secret does not say until when (a day, as a rule); {changed}", None
    if expires_at <= now:
        return f"expired {_shown(expires_at)}; {changed}", _put("the token has expired")
    return f"there, until {_shown(expires_at)}; {changed}", None


def _expires_at(secret: str) -> datetime | None:
    """Read what a rotation has written; None for what it has not."""
    try:
        moment = datetime.fromisoformat(json.loads(secret)["expires_at"])
    except (ValueError, KeyError, TypeError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _shown(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
