"""Tests that try something many times: a few times in ``make test``, often in ``make test-all`` (``RELIABILITY=long``).

Such a test has the marker ``campaign(WHAT, short=N, long=M)``. Its argument ``attempt`` is a number from 0, from which
it draws what it tries. The long form ends with a table: what, tried, held.
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
    """Print how many were tried and held. A test of several at once says so by ``record_property('tried', N)``."""
    if not IS_LONG:
        return
    counts: dict[str, Counter[str]] = {}
    for outcome, column in (('passed', 'held'), ('failed', 'failed'), ('error', 'failed')):
        for report in terminalreporter.stats.get(outcome, []):
            properties = dict(report.user_properties)
            if 'campaign' in properties:
                counts.setdefault(properties['campaign'], Counter())[column] += properties.get('tried', 1)
    terminalreporter.section('reliability')
    for what, count in sorted(counts.items()):
        terminalreporter.write_line(f'| {what} | {count["held"] + count["failed"]} | {count["held"]} |')
