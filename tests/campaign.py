"""Tests that try something many times: a few times in ``make test``, often in ``make test-all`` (``RELIABILITY=long``).

Such a test has the marker ``campaign(WHAT, short=N, long=M)``. Its argument ``attempt`` is a number from 0, from which
it draws what it tries. The long form ends with a table of what was tried, what held and what failed.
"""

import os
from collections import Counter

import pytest

IS_LONG = os.environ.get('RELIABILITY') == 'long'


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker('campaign')
    if marker is not None and 'attempt' in metafunc.fixturenames:
        metafunc.parametrize('attempt', range(marker.kwargs['long' if IS_LONG else 'short']))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if marker := item.get_closest_marker('campaign'):
            item.user_properties.append(('campaign', marker.args[0]))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the table. A test that tries several things at once says how many by ``record_property('tried', N)``."""
    if not IS_LONG:
        return
    counts: dict[str, Counter[str]] = {}
    for outcome, column in (('passed', 'held'), ('failed', 'failed'), ('error', 'failed'), ('skipped', 'skipped')):
        for report in terminalreporter.stats.get(outcome, []):
            properties = dict(report.user_properties)
            if 'campaign' in properties:
                counts.setdefault(properties['campaign'], Counter())[column] += properties.get('tried', 1)
    columns = ('held', 'failed', 'skipped')
    terminalreporter.section('reliability')
    terminalreporter.write_line(f'| {"":60} |   tried |' + ''.join(f' {column:>7} |' for column in columns))
    terminalreporter.write_line(f'| {"-" * 60} | ------: |' + ' ------: |' * 3)
    for what, count in sorted(counts.items()):
        tried = count['held'] + count['failed']
        line = ''.join(f' {count[column]:>7} |' for column in columns)
        terminalreporter.write_line(f'| {what:60} | {tried:>7} |{line}')
