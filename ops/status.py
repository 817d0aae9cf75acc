"""`status`: the queue, the dead letters and the token."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from botocore.exceptions import ClientError

from agent_log_capture.domain.auth_token import TokenFormatError, parse_auth_token
from ops import dead_letters
from ops.errors import DENIED, NEEDS_A_PERSON, WELL, code_of
from ops.stack import Stack

# The threshold of the alarm queue-age: template.yaml says why.
TOO_OLD = timedelta(seconds=3000)
_METRIC_WINDOW = timedelta(minutes=15)  # SQS sends its metrics every five minutes
_NOT_READ = "messages are not read from CaptureQueue: see make logs, and whether the function is throttled"
_DEAD_LETTERS = "dead letters: fix what the reasons say, then make replay"
_ADVICE = "put the token, or credentials and start the rotation (README, Deploy)"


def status(stack: Stack) -> int:
    """Print the status; return NEEDS_A_PERSON when there is a problem."""
    now = datetime.now(UTC)
    url = stack.output("CaptureQueueUrl")
    letters, causes = dead_letters.describe(stack)
    age = _age_of_oldest(stack, url.rsplit("/", 1)[1], now)
    token, token_problem = _token(stack, now)
    counts = ", ".join(f"{count:,} {state}" for state, count in dead_letters.message_counts(stack, url).items())
    print(f"{stack}\n")
    print(f"CaptureQueue   {counts}; oldest message: {'unknown' if age is None else age}")
    print(f"dead letters   {letters:,}", *causes, sep="\n")
    print(f"token          {token}")
    problems = [_NOT_READ] if age and age > TOO_OLD else []
    problems += [_DEAD_LETTERS] if letters else []
    problems += [token_problem] if token_problem else []
    print("\nNeeds attention:" if problems else "\nAll is well.", *problems, sep="\n  - ")
    return NEEDS_A_PERSON if problems else WELL


def _age_of_oldest(stack: Stack, queue_name: str, now: datetime) -> timedelta | None:
    """Return the last age of the oldest message in CloudWatch; None when there is none."""
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
    """Return a description of the token, without the token itself, and its problem if there is one."""
    secrets, arn = stack.client("secretsmanager"), stack.output("TokenSecretArn")
    changed = _last_change(secrets.describe_secret(SecretId=arn))
    try:
        secret: str | None = secrets.get_secret_value(SecretId=arn).get("SecretString")
        parse_auth_token(secret, stack.parameter("CloudBackupProjectId") or None)
    except ClientError as error:
        if code_of(error) in DENIED:
            return f"you may not read it; {changed}", None
        if code_of(error) != "ResourceNotFoundException":
            raise
        return "missing", f"the secret has no value: {_ADVICE}"
    except TokenFormatError as error:
        return f"missing; {changed}", f"the secret {error}: {_ADVICE}"
    expires_at = _expires_at(secret or "")
    if expires_at is None:
        return f"present; the secret does not say until when (usually a day); {changed}", None
    if expires_at <= now:
        return f"expired {_shown(expires_at)}; {changed}", f"the token has expired: {_ADVICE}"
    return f"valid until {_shown(expires_at)}; {changed}", None


def _last_change(secret: Mapping[str, Any]) -> str:
    for what in ("Rotated", "Changed"):
        if moment := secret.get(f"Last{what}Date"):
            return f"last {what.lower()} {_shown(moment)}"
    return "never changed"


def _expires_at(secret: str) -> datetime | None:
    """Return the time that a rotation has written; None for a token that an operator has put."""
    try:
        return datetime.fromisoformat(json.loads(secret)["expires_at"]).astimezone(UTC)
    except (ValueError, KeyError, TypeError):
        return None


def _shown(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
