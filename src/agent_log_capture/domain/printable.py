"""What outsiders write, made fit for a log line, a mail or a subject."""

import re

# So many marks may pile up on one character: enough for every script, too few to cover the lines around it. Whatever
# is neither a letter, a digit nor ASCII counts as a mark, but for the ellipsis that this module itself puts at a cut.
_PILED_UP = re.compile(r"(?<=[^\w\x20-\x7e…]{4})[^\w\x20-\x7e…]")


def printable(text: str, limit: int) -> str:
    """Return `text` on one line, without characters that do not print, cut at `limit` characters.

    Control, bidirectional and surrogate characters become a space, and so do marks that pile up, so that an event
    or an answer can neither forge a log line nor reorder or cover what a person reads. What is printable stays as it
    is: to make it printable again changes nothing.
    """
    printed = "".join(character if character.isprintable() else " " for character in text[: limit + 1])
    shown = _PILED_UP.sub(" ", printed)
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
