"""A list of agents in plain text: IDs separated by commas, semicolons, white space or lines."""

from dataclasses import dataclass

from agent_log_capture.domain.capture import is_agent_id
from agent_log_capture.domain.events.agent_ids import begins_like_json, has_digit, shown, split
from ops.errors import OperatorError


@dataclass(frozen=True, slots=True)
class Bad:
    """A word that is not an agent ID, in printable form, and its line."""

    line: int
    shown: str


@dataclass(frozen=True, slots=True)
class AgentList:
    """The content of a list: each ID once, in the order of the list."""

    ids: tuple[str, ...]
    bad: tuple[Bad, ...]
    repeated: int


def read_list(content: bytes) -> AgentList:
    """Read a list; OperatorError when it is not plain text."""
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise OperatorError("the list is not a text in UTF-8") from error
    if begins_like_json(text):
        raise OperatorError("the list is JSON, not plain text: send it with aws sqs send-message")
    words = [(number, word) for number, line in enumerate(text.split("\n"), 1) for word in split(line)]
    good = [word for _, word in words if _is_good(word)]
    ids = tuple(dict.fromkeys(good))
    bad = tuple(Bad(number, shown(word)) for number, word in words if not _is_good(word))
    return AgentList(ids, bad, len(good) - len(ids))


def _is_good(word: str) -> bool:
    """Return whether the function reads a word of a plain text as an agent ID."""
    return is_agent_id(word) and has_digit(word)
