"""What outsiders write, made fit for a log line, a mail or a subject."""


def printable(text: str, limit: int) -> str:
    """Return `text` on one line, without characters that do not print, cut at `limit` characters.

    Control, bidirectional and surrogate characters become a space, so that an event or an answer can neither
    forge a log line nor reorder what a person reads.
    """
    shown = "".join(character if character.isprintable() else " " for character in text[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"
