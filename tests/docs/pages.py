"""Read the Markdown pages of the repository: code blocks, inline code, links, headings, tables."""

import re
from dataclasses import dataclass
from pathlib import Path

from running import ROOT

# Pages with commands and paths that a reader follows; the pages of configs/ are checked for links only.
PAGES = sorted(p.relative_to(ROOT) for pattern in ('*.md', 'docs/*.md') for p in ROOT.glob(pattern))
LINKED_PAGES = PAGES + sorted(p.relative_to(ROOT) for p in ROOT.glob('configs/*/README.md'))

_BLOCK = re.compile(r'^```(\w*)\n(.*?)^```$', re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced code block."""

    page: Path
    language: str
    text: str

    def __str__(self) -> str:  # the test's id
        return f'{self.page}: {self.text.splitlines()[0][:60]}'


def read(page: Path) -> str:
    return (ROOT / page).read_text()


def blocks(language: str) -> list[Block]:
    """Return the code blocks of a language on all pages."""
    return [Block(page, *found) for page in PAGES for found in _BLOCK.findall(read(page)) if found[0] == language]


def prose(page: Path) -> str:
    """Return a page without its code blocks."""
    return _BLOCK.sub('', read(page))


def inline_code(text: str) -> list[str]:
    return re.findall(r'(?<!`)`([^`\n]+)`(?!`)', text)


def links(page: Path) -> list[str]:
    """Return the targets of the links and images of a page."""
    return re.findall(r'\]\(([^)\s]+)\)', re.sub(r'`[^`\n]*`', '', prose(page)))


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    titles = re.findall(r'^#+ +(.+)$', prose(page), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', title.lower()).replace(' ', '-') for title in titles}


def table(page: Path, first_cell: str) -> list[list[str]]:
    """Return the rows, without the head, of the table whose first head cell is given."""
    lines = read(page).splitlines()
    heads = [i for i, line in enumerate(lines) if line.startswith(f'| {first_cell} |')]
    assert len(heads) == 1, f'{page} has {len(heads)} tables that begin with {first_cell!r}'
    rows = []
    for line in lines[heads[0] + 2 :]:
        if not line.startswith('|'):
            break
        rows.append([cell.strip() for cell in line.strip('|').split('|')])
    return rows
