"""Makes text from outside safe to show: printable in a log line, a mail or a subject, and without secrets."""

import re
from typing import Any

# More than four marks on one character could cover the lines around it; no script needs as many. A character that is
# not a letter, a digit or ASCII counts as a mark, except for the ellipsis that this module puts at a cut.
_PILED_UP = re.compile(r"(?<=[^\w\x20-\x7e…]{4})[^\w\x20-\x7e…]")
_STRUCK_OUT = "***"
# One ASCII character, as JSON, URLs and HTML may write it. The module `html` costs 2 ms of a cold start.
_ESCAPED = re.compile(
    r"(?:\\u00|%|&#x0*)([0-9a-f]{2});?|&#0*([0-9]{2,3});?|\\([/\"\\])|&(amp|quot|lt|gt);", re.IGNORECASE
)
_NAMED = {"amp": "&", "quot": '"', "lt": "<", "gt": ">"}
_MAX_ESCAPES = 4  # of one character, one inside the other


def printable(text: str, limit: int) -> str:
    """Return `text` on one line, without characters that do not print, cut at `limit` characters.

    Control, bidirectional and surrogate characters become a space, and so do marks that pile up, so that an event
    or a response cannot forge a log line, or reorder or cover what a person reads. A printable text stays as it is.
    """
    if text.isascii() and text.isprintable() and len(text) <= limit:
        return text
    printed = "".join(character if character.isprintable() else " " for character in text[: limit + 1])
    shown = _PILED_UP.sub(" ", printed)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


def redacted(text: str, secret: str) -> str:
    """Return `text` with a secret struck out; nothing of it is left if it holds the secret in an escaped form."""
    shown = text.replace(secret, _STRUCK_OUT)
    has_escapes = any(mark in shown for mark in "\\%&")
    return _STRUCK_OUT if has_escapes and _unescaped(secret) in _unescaped(shown) else shown


def redact(fields: dict[str, Any], secret: str) -> None:
    """Strike a secret out of every text that a JSON object holds, at any depth."""
    holders: list[Any] = [fields]
    while holders:
        holder = holders.pop()
        for key, value in holder.items() if isinstance(holder, dict) else enumerate(holder):
            if isinstance(value, str):
                holder[key] = redacted(value, secret)
            elif isinstance(value, dict | list):
                holders.append(value)


def _unescaped(text: str) -> str:
    for _ in range(_MAX_ESCAPES):
        text = _ESCAPED.sub(_character, text)
    return text


def _character(escaped: re.Match[str]) -> str:
    in_hex, in_decimal, itself, name = escaped.groups()
    if itself:
        return itself
    return _NAMED[name.lower()] if name else chr(int(in_hex, 16) if in_hex else int(in_decimal))
