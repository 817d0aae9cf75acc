"""`status`: the queue, the dead letters and the token."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from botocore.exceptions import ClientError

from agent_log_capture.domain.auth_token import TokenFormatError, parse_auth_token
from ops import dead_letters
from ops.errors import NEEDS_A_PERSON, WELL, code_of, is_denied
from ops.stack import Stack

# The threshold of the alarm queue-age: template.yaml says why.
TOO_OLD = timedelta(seconds=3000)
_METRIC_WINDOW = timedelta(minutes=15)  # SQS sends its metrics every five minutes
_ADVICE = "put the token, or credentials and start the rotation (README, Deploy)"


def status(stack: Stack) -> int:
    """Print the status; return NEEDS_A_PERSON when there is a problem."""
    now = datetime.now(UTC)
    url = stack.output("CaptureQueueUrl")
    sqs = stack.client("sqs")
    letters, causes = dead_letters.describe(sqs, stack.output("CaptureDeadLetterQueueUrl"))
    age = _age_of_oldest(stack, url.rsplit("/", 1)[1], now)
    token, token_problem = _token(stack, now)
    counts = ", ".join(f"{count:,} {state}" for state, count in dead_letters.message_counts(sqs, url).items())
    print(f"{stack.name} in {stack.region}\n")
    print(f"CaptureQueue   {counts}; oldest message: {'unknown' if age is None else age}")
    print(f"dead letters   {letters:,}", *causes, sep="\n")
    print(f"token          {token}")
    problems = []
    if age is not None and age > TOO_OLD:
        problems.append(
            "messages are not read from CaptureQueue: see make logs, and whether the function is throttled"
        )
    if letters:
        problems.append("dead letters: fix what the reasons say, then make replay")
    if token_problem:
        problems.append(token_problem)
    print("\nNeeds attention:" if problems else "\nAll is well.")
    for problem in problems:
        print(f"  - {problem}")
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
        parse_auth_token(secret, stack.parameters.get("CloudBackupProjectId") or None)
    except ClientError as error:
        if is_denied(error):
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


def _last_change(secret: Mapping[str, object]) -> str:
    rotated, changed = secret.get("LastRotatedDate"), secret.get("LastChangedDate")
    if isinstance(rotated, datetime):
        return f"last rotated {_shown(rotated)}"
    return f"last changed {_shown(changed)}" if isinstance(changed, datetime) else "never changed"


def _expires_at(secret: str) -> datetime | None:
    """Return the time that a rotation has written; None for a token that an operator has put."""
    try:
        moment = datetime.fromisoformat(json.loads(secret)["expires_at"])
    except (ValueError, KeyError, TypeError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _shown(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
