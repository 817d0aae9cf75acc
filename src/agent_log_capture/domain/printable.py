"""Makes text from outside printable: in a log line, a mail or a subject."""

import re

# More than four marks on one character could cover the lines around it; no script needs as many. A character that is
# not a letter, a digit or ASCII counts as a mark, except for the ellipsis that this module puts at a cut.
_PILED_UP = re.compile(r"(?<=[^\w\x20-\x7e…]{4})[^\w\x20-\x7e…]")


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
