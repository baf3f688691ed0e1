"""Problems of a dataset, with file and record, as a table and as JSON."""

import json
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

Level = Literal['error', 'warning']
# Examples of a kind of problem in the table.
_EXAMPLES = 3


@dataclass(frozen=True)
class Problem:
    """A problem of a dataset.

    Attributes:
        level: An ``error`` stops or spoils training for certain; everything else is a ``warning``.
        loader: The dataloader of the config whose dataset it is.
        kind: The same text for all problems of a kind, without values.
        file: Path of the image, mask, annotation file or directory; empty for a setting of the config.
        record: A part of the file, such as ``annotation 17``; empty for all of it.
        detail: The values, and how to mend them.
    """

    level: Level
    loader: str
    kind: str
    file: str = ''
    record: str = ''
    detail: str = ''

    @property
    def where(self) -> str:
        """File and record."""
        return ', '.join(filter(None, (self.file, self.record)))

    def __str__(self) -> str:
        text = ': '.join(filter(None, (self.loader, self.where, self.kind)))
        return text + (f' ({self.detail})' if self.detail else '')


class Report(list[Problem]):
    """The problems that were found, and what has been checked.

    Attributes:
        checked: Numbers of files by what they are.
        notes: A line for each dataset that there are no checks for.
    """

    def __init__(self) -> None:
        super().__init__()
        self.checked: Counter[str] = Counter()
        self.notes: list[str] = []

    @property
    def errors(self) -> list[Problem]:
        """The problems that stop or spoil training."""
        return [problem for problem in self if problem.level == 'error']

    def summary(self) -> str:
        """Return on one line how much has been checked and how many problems there are."""
        checked = ', '.join(f'{number} {what}' for what, number in self.checked.items()) or 'nothing'
        return f'checked {checked}: {len(self.errors)} errors, {len(self) - len(self.errors)} warnings'

    def table(self) -> str:
        """Return one row for each kind of problem, with its first examples below it."""
        groups: dict[tuple[str, str, str], list[Problem]] = {}
        for problem in self:
            groups.setdefault((problem.level, problem.loader, problem.kind), []).append(problem)
        lines = []
        for (level, loader, kind), found in sorted(groups.items()):
            lines.append(f'{level:<7}  {len(found):>7}  {loader:<16}  {kind}')
            texts = [': '.join(filter(None, (problem.where, problem.detail))) for problem in found[:_EXAMPLES]]
            lines += [f'{"":37}{text}' for text in texts if text]
            if len(found) > _EXAMPLES:
                lines.append(f'{"":37}and {len(found) - _EXAMPLES} more')
        if lines:
            lines.insert(0, f'{"level":<7}  {"number":>7}  {"dataset":<16}  problem')
        return '\n'.join([*lines, *self.notes, self.summary()])

    def write_json(self, path: str | Path) -> None:
        """Write every problem."""
        errors = len(self.errors)
        content = dict(checked=dict(self.checked), notes=self.notes, errors=errors, warnings=len(self) - errors)
        problems = [asdict(problem) for problem in self]
        Path(path).write_text(json.dumps(content | dict(problems=problems), indent=1) + '\n')
