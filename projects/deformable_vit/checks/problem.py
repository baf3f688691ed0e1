"""Problems of a dataset, with file and record."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

from .counts import ClassCounts


@dataclass(frozen=True, order=True)
class Problem:
    """A problem of a dataset.

    Attributes:
        level: An ``error`` stops or spoils training for certain; everything else is a ``warning``.
        loader: The dataloader of the config whose dataset it is.
        kind: The same text for all problems of a kind, without values.
        file: Path of the image, mask, annotation file or directory; empty for a setting of the config.
        record: A part of the file, such as ``annotation 17``; empty for all of it.
        detail: The values, and how to fix them.
    """

    level: Literal['error', 'warning']
    loader: str
    kind: str
    file: str = ''
    record: str = ''
    detail: str = ''

    def __str__(self) -> str:
        where = ', '.join(filter(None, (self.file, self.record)))
        return ': '.join(filter(None, (where, self.kind))) + (f' ({self.detail})' if self.detail else '')


class Report(list[Problem]):
    """The problems that were found, errors first.

    Attributes:
        checked: How many files, by what they are.
        counts: By loader, how often each class occurs, where all of its files have been read.
    """

    def __init__(self) -> None:
        super().__init__()
        self.checked: Counter[str] = Counter()
        self.counts: dict[str, ClassCounts] = {}

    @property
    def errors(self) -> list[Problem]:
        return [problem for problem in self if problem.level == 'error']

    def summary(self) -> str:
        """Return on one line how much has been checked and how many problems there are."""
        checked = ', '.join(f'{number} {what}' for what, number in self.checked.items()) or 'nothing'
        return f'checked {checked}: {len(self.errors)} errors, {len(self) - len(self.errors)} warnings'
