"""Errors about the content of checkpoint files."""

from ..errors import CheckpointError, shown

__all__ = ['CheckpointError', 'ContentError', 'damaged', 'refused', 'shown']


class ContentError(ValueError):
    """What is wrong with a checkpoint, without its name: "is damaged: ...". A :class:`CheckpointError` follows."""


def damaged(reason: object) -> ContentError:
    return ContentError(f'is damaged or not a checkpoint: {shown(reason)}')


def refused(reason: str) -> ContentError:
    # Names in it are cut by shown(); a part that was forgotten must not break the line either.
    return ContentError(f'is refused: {reason if reason.isprintable() else ascii(reason)}')
