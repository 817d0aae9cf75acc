"""The topic to which every outcome and job summary is published."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

from agent_log_capture.adapters.batches import HasTime, always, send_in_batches
from agent_log_capture.domain.job import JobSummary
from agent_log_capture.domain.notifications import job_summary, notification
from agent_log_capture.domain.outcome import Outcome

if TYPE_CHECKING:
    from mypy_boto3_sns import SNSClient

MAX_BYTES = 256 * 1024  # of a message, and of a batch of ten


class OutcomeTopic:
    """Publishes outcomes and job summaries, ten at a time; with `has_chat`, in a form for a chat as well."""

    def __init__(self, client: "SNSClient", topic_arn: str, *, has_chat: bool = False) -> None:
        self._has_chat = has_chat
        self._send = partial(
            send_in_batches,
            send=lambda batch: client.publish_batch(TopicArn=topic_arn, PublishBatchRequestEntries=batch),  # type: ignore[arg-type]
            max_bytes=MAX_BYTES,
        )

    def publish(self, outcomes: Sequence[Outcome], has_time: HasTime = always) -> Mapping[int, str]:
        """Publish a notification for each outcome; return the error of each that failed, by its index.

        `has_time` is called before each request, and says whether there is time for it.
        """
        messages = [notification.sns_message(outcome, has_chat=self._has_chat) for outcome in outcomes]
        return self._send(messages, has_time=has_time)

    def publish_summaries(self, summaries: Sequence[JobSummary], has_time: HasTime = always) -> Mapping[int, str]:
        """Publish a notification for each job summary; otherwise as `publish`."""
        messages = [job_summary.sns_message(summary, has_chat=self._has_chat) for summary in summaries]
        return self._send(messages, has_time=has_time)
