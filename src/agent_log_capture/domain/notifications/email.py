"""The subject and the mail of a notification."""

import textwrap
from functools import cache

from agent_log_capture.domain.notifications.texts import Text, expiry_of
from agent_log_capture.domain.outcome import Outcome
from agent_log_capture.domain.printable import printable

_SUBJECT_CHARACTERS = 100  # the most that SNS accepts
_COLUMNS = 100
_LABEL_COLUMNS = 14
_LINKS = {"Log file", "Stored at"}  # a link that is broken over lines does not work


def subject(outcome: Outcome) -> str:
    """Return the subject for an outcome: the status and the agent first."""
    alarm = f" - {outcome.trigger.name}" if outcome.trigger.name else ""
    return subject_line(f"{outcome.status} {outcome.agent_id or '(no agent)'}{alarm}")


def subject_line(text: str, tail: str = "") -> str:
    """Return `text` and `tail` in printable ASCII; if they are too long together, `text` is cut."""
    ascii_text = printable(text, 10 * _SUBJECT_CHARACTERS).encode("ascii", "replace").decode()
    return ascii_text[: _SUBJECT_CHARACTERS - len(tail)].rstrip() + tail


def to_email(text: Text) -> str:
    """Return the mail: what happened, what to do next, the link, and the facts.

    Lines have at most 100 columns; only links, and commands with a very long agent ID, can be longer.
    """
    parts = [
        text.headline,
        _wrapped(text.next_steps),
        text.command and f"    {text.command}",
        _download(text),
        "\n".join(_fact_line(label, fact) for label, fact in text.facts.items() if fact),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


@cache
def _wrapped(next_steps: str) -> str:
    """Return one of the fixed texts in lines: wrapping it costs more than the rest of a notification."""
    return "\n".join(textwrap.fill(step, _COLUMNS) for step in next_steps.splitlines())


def _download(text: Text) -> str | None:
    """Return the link on a line of its own, which mail programs make clickable."""
    link = text.log_file.download_url
    return link and f"Download link ({expiry_of(text.log_file)}):\n{link}"


def _fact_line(label: str, fact: str) -> str:
    line = f"{label + ':':<{_LABEL_COLUMNS}}{fact}"
    if len(line) <= _COLUMNS or label in _LINKS:
        return line
    # Indented, so that text from outside cannot look like a fact of its own.
    return textwrap.fill(line, _COLUMNS, subsequent_indent=" " * _LABEL_COLUMNS, break_on_hyphens=False)
