"""Problems of a dataset, with file and record, as a table and as JSON."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

Level = Literal['error', 'warning']
# Examples of a kind of problem in the table.
_EXAMPLES = 3


@dataclass(frozen=True)
class Problem:
    """A problem in a file.

    Attributes:
        kind: The same text for all problems of a kind, without values.
        file: Path of the image, mask, annotation file or directory.
        record: What in the file, such as ``annotation 17``; empty for all of it.
        detail: The values.
        level: An ``error`` stops or spoils training; OpenMMLab works around a ``warning``.
        loader: The dataloader of the config whose dataset it is.
    """

    kind: str
    file: str
    record: str = ''
    detail: str = ''
    level: Level = 'error'
    loader: str = ''

    def __str__(self) -> str:
        where = f'{self.file}, {self.record}' if self.record else self.file
        return f'{where}: {self.kind}' + (f' ({self.detail})' if self.detail else '')


@dataclass
class Report:
    """What has been checked and found."""

    problems: list[Problem] = field(default_factory=list)
    checked: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def add(self, problems: Iterable[Problem]) -> None:
        self.problems.extend(problems)

    @property
    def errors(self) -> list[Problem]:
        return [problem for problem in self.problems if problem.level == 'error']

    def summary(self) -> str:
        """Return on one line how much has been checked and how many problems there are."""
        checked = ', '.join(f'{number} {what}' for what, number in self.checked.items()) or 'nothing'
        warnings = len(self.problems) - len(self.errors)
        return f'checked {checked}: {len(self.errors)} errors, {warnings} warnings'

    def table(self) -> str:
        """Return one row for each kind of problem, with its first examples below it."""
        groups: dict[tuple[str, str, str], list[Problem]] = {}
        for problem in self.problems:
            groups.setdefault((problem.level, problem.loader, problem.kind), []).append(problem)
        lines = []
        for (level, loader, kind), found in sorted(groups.items()):
            lines.append(f'{level:<7}  {len(found):>7}  {loader:<16}  {kind}')
            lines += [f'{"":37}{_where(problem)}' for problem in found[:_EXAMPLES]]
            if len(found) > _EXAMPLES:
                lines.append(f'{"":37}and {len(found) - _EXAMPLES} more')
        if lines:
            lines.insert(0, f'{"level":<7}  {"number":>7}  {"dataset":<16}  problem')
        return '\n'.join([*lines, *self.notes, self.summary()])

    def write_json(self, path: str | Path) -> None:
        """Write every problem."""
        content = dict(
            checked=dict(self.checked),
            notes=self.notes,
            errors=len(self.errors),
            warnings=len(self.problems) - len(self.errors),
            problems=[asdict(problem) for problem in self.problems],
        )
        Path(path).write_text(json.dumps(content, indent=1) + '\n')


def _where(problem: Problem) -> str:
    where = f'{problem.file}, {problem.record}' if problem.record else problem.file
    return f'{where}: {problem.detail}' if problem.detail else where
