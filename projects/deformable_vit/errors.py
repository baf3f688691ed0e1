"""Errors that a user can fix, on one line."""

# A name in a message is cut after this many characters.
_LONGEST = 200


class UserError(Exception):
    """An error that the user can fix; the message names the value and the fix, on one line."""


class TrainingError(UserError):
    """An error in the middle of a training, of one of its processes."""


class CheckpointError(UserError, ValueError):
    """A checkpoint that cannot be used; the message names the file and the reason, on one line."""


def first_line(error: BaseException) -> str:
    """Return the type and the message of an exception on one line."""
    text = ' '.join(str(error.args[0] if isinstance(error, KeyError) and error.args else error).split())
    # The end of a long message often has the cause or the fix.
    text = text if len(text) <= 400 else f'{text[:200]} ... {text[-200:]}'
    return f'{type(error).__name__}: {text}' if text else type(error).__name__


def shown(name: object) -> str:
    """Return a name of a file or from a file for a message, with ``repr`` if it could change the terminal or the log.

    Line breaks, escape codes, lone surrogates and marks of the writing direction are not printable.
    """
    text = str(name) if isinstance(name, str) else repr(name)
    text = text if len(text) <= _LONGEST else text[:_LONGEST] + '...'
    return text if text.isprintable() else ascii(text)
