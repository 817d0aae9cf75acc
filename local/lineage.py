"""Lambda's recursive loop detection: the invocations of one message, counted in its trace header.

Lambda gives each invocation a trace ID with a `Lineage`, which botocore sends with every call of the function
(`add_recursion_detection_header` in botocore/handlers.py). SQS keeps it with the messages of such a call, as
`AWSTraceHeader`, where Lambda reads it. Sources: the Lambda developer guide, "Use Lambda recursive loop detection to
prevent infinite loops"; the X-Ray developer guide, "Amazon SQS and AWS X-Ray"; boto/boto3 issue 3899.
"""

import os
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from agent_log_capture.domain.events.envelopes import is_sqs_event

# "If your function is invoked more than approximately 16 times in the same chain of requests", it is stopped.
MOST_INVOCATIONS = 16
_LINEAGE = re.compile(r"Lineage=1:[0-9a-f]+:(\d+)")
_FUNCTION_HASH = "fe460cdd"
_VARIABLE = "_X_AMZN_TRACE_ID"


def invocation_number(attributes: str) -> int:
    """Return which invocation a message starts in its chain of requests, by the trace header in `attributes`."""
    found = _LINEAGE.search(attributes)
    return int(found[1]) + 2 if found else 1  # the first invocation's lineage ends with 0


def trace_header(event: object) -> str:
    """Return the trace ID of an invocation with `event`.

    AWS does not document how a batch of several chains is counted: here it counts as the longest of them.
    """
    records = event["Records"] if is_sqs_event(event) else []
    number = max((invocation_number(f"{record.get('attributes')}") for record in records), default=1)
    root = f"Root=1-{uuid.uuid4().hex[:8]}-{uuid.uuid4().hex[:24]}"
    return f"{root};Parent={uuid.uuid4().hex[:16]};Sampled=0;Lineage=1:{_FUNCTION_HASH}:{number - 1}"


@contextmanager
def traced(event: object) -> Iterator[None]:
    """Let calls in the `with` block carry the trace ID of an invocation with `event`.

    botocore sends it only where `AWS_LAMBDA_FUNCTION_NAME` is set, too.
    """
    os.environ[_VARIABLE] = trace_header(event)
    try:
        yield
    finally:
        os.environ.pop(_VARIABLE, None)
