"""Errors of checkpoint files, on one line whatever the file is called and contains."""

# A name in a message is cut after this many characters.
_LONGEST = 200


class CheckpointError(ValueError):
    """A checkpoint that cannot be used; the message names the file and the reason, on one line."""


class ContentError(ValueError):
    """What is wrong with a checkpoint, without its name: "is damaged: ...". A :class:`CheckpointError` follows."""


def shown(name: object) -> str:
    """Return a name of a file or from a file, for a message: with ``repr`` if it could change the terminal or the log.

    Line breaks, escape codes, lone surrogates and marks of the writing direction are not printable.
    """
    text = str(name) if isinstance(name, str) else repr(name)
    text = text if len(text) <= _LONGEST else text[:_LONGEST] + '...'
    return text if text.isprintable() else ascii(text)


def damaged(reason: object) -> ContentError:
    return ContentError(f'is damaged or not a checkpoint: {shown(reason)}')


def refused(reason: str) -> ContentError:
    # Names in it are cut by shown(); a part that was forgotten must not break the line either.
    return ContentError(f'is refused: {reason if reason.isprintable() else ascii(reason)}')
