"""Makes text from outside safe to show: printable in a log line, a mail or a subject, and without secrets."""

import json
import re
from typing import Any
from urllib.parse import quote

# More than four marks on one character could cover the lines around it; no script needs as many. A character that is
# not a letter, a digit or ASCII counts as a mark, except for the ellipsis that this module puts at a cut.
_PILED_UP = re.compile(r"(?<=[^\w\x20-\x7e…]{4})[^\w\x20-\x7e…]")
# The module `html` costs 2 ms of a cold start.
_IN_HTML = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#x27;"})


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
    """Return `text` with a secret struck out, also where JSON, a URL or HTML escapes it, or two of them do."""
    if not any(mark in text for mark in "\\%&"):
        return text.replace(secret, "***")
    forms = {secret}
    for _ in range(2):
        for form in tuple(forms):
            in_json = json.dumps(form)[1:-1]
            forms |= {
                quote(form),
                quote(form, safe=""),
                in_json,
                in_json.replace("/", r"\/"),
                form.translate(_IN_HTML),
            }
    # The digits of an escape may be in either case.
    return re.sub("|".join(map(re.escape, forms)), "***", text, flags=re.IGNORECASE)


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
