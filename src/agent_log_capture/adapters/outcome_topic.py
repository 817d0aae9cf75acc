"""The topic on which every outcome is told."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from agent_log_capture.adapters.batches import Entry, HasTime, always, send_in_batches
from agent_log_capture.domain.job import JobSummary
from agent_log_capture.domain.notifications import job_summary, notification
from agent_log_capture.domain.outcome import Outcome

if TYPE_CHECKING:
    from mypy_boto3_sns import SNSClient

MAX_BYTES = 256 * 1024  # of a message, and of a batch of ten


class OutcomeTopic:
    """Publishes outcomes, and sums of jobs, ten at a time; with `has_chat`, in a form for a chat as well."""

    def __init__(self, client: "SNSClient", topic_arn: str, *, has_chat: bool = False) -> None:
        self._client = client
        self._topic_arn = topic_arn
        self._has_chat = has_chat

    def publish(self, outcomes: Sequence[Outcome], has_time: HasTime = always) -> Mapping[int, str]:
        """Publish a notification for each outcome; return why by index, for those that could not be published.

        `has_time` tells before each call whether there is still time for it.
        """
        return self._send(
            [notification.sns_message(outcome, has_chat=self._has_chat) for outcome in outcomes], has_time
        )

    def publish_summaries(self, sums: Sequence[JobSummary], has_time: HasTime = always) -> Mapping[int, str]:
        """Publish a notification for the sum of each job; otherwise as `publish`."""
        return self._send([job_summary.sns_message(done, has_chat=self._has_chat) for done in sums], has_time)

    def _send(self, entries: Sequence[Entry], has_time: HasTime) -> Mapping[int, str]:
        def send(batch: list[Entry]) -> Mapping[str, Any]:
            return self._client.publish_batch(
                TopicArn=self._topic_arn,
                PublishBatchRequestEntries=batch,  # type: ignore[arg-type]
            )

        return send_in_batches(entries, send, max_bytes=MAX_BYTES, has_time=has_time)
