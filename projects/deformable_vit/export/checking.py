"""Run an exported file beside the model that it came from."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import UserError, first_line
from .agreement import MASK, Agreement
from .inputs import Input
from .running import ExportedFile

TOLERANCE = 1e-4


def check_file(path: Path, module: Any, spec: Input, score_thr: float = 0.0) -> str:
    """Compare the outputs of a file with those of its module on five inputs, and return a table of deviations.

    Args:
        path: The file.
        module: Takes one tensor, and has ``output_names``; for a file of label maps the one with logits.
        spec: The input of both.
        score_thr: Least score of a detection of the model.

    Raises:
        UserError: A deviation exceeds the tolerance.
    """
    file = ExportedFile(path)
    rows: list[dict[str, str]] = []
    failed: list[str] = []
    for image in spec.check_images():
        size = ' x '.join(map(str, image.shape))
        try:
            found = file(image)
        except Exception as error:  # of the two libraries, which have many
            raise UserError(f'the file does not run with {size}: {first_line(error)}') from error
        with torch.no_grad():
            expected = dict(zip(module.output_names, module(image), strict=True))
        row, problems = compare_outputs(expected, found, score_thr)
        rows.append(dict(input=size) | row)
        failed += [f'{problem} at {size}' for problem in problems]
    if failed:
        more = f', and {len(failed) - 1} more' if len(failed) > 1 else ''
        raise UserError(f'the file is not equal to the model: {failed[0]}{more}; --no-check keeps it')
    if all(row.get('detections') == '0' for row in rows):
        return f'{_markdown(rows)}\nThe model finds nothing in these images, so that the check says little'
    return _markdown(rows)


def compare_outputs(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor], score_thr: float = 0.0
) -> tuple[dict[str, str], list[str]]:
    """Return the deviation of each output, as text, and what exceeds the tolerance.

    Args:
        expected: Outputs of the model by name.
        found: Those of the file.
        score_thr: Least score of a detection of the model.
    """
    if 'boxes' in expected:
        return _compare_detections(expected, found, score_thr)
    row, problems = {}, []
    for name, x in found.items():
        deviation = label_deviation(expected['logits'], x) if name == 'label_map' else deviation_of(expected[name], x)
        row[name] = f'{deviation:.1e}'
        if not deviation <= TOLERANCE:  # also NaN
            problems.append(f'{name} deviates by {deviation:.1e} of its range, more than {TOLERANCE:.0e},')
    return row, problems


def deviation_of(expected: Tensor, found: Tensor) -> float:
    """Return the largest difference, as a fraction of the range of the expected values."""
    if expected.shape != found.shape:
        return float('inf')
    low, high = expected.double().aminmax()
    return float(
        (expected.double() - found.double()).abs().max() / (high - low).clamp(min=torch.finfo(torch.float).tiny)
    )


def label_deviation(logits: Tensor, labels: Tensor) -> float:
    """Return by how much the logit of a label falls below the best one at most, as a fraction of the logits' range.

    Args:
        logits: (B, classes, H, W).
        labels: (B, H, W).
    """
    if logits.shape[2:] != labels.shape[1:]:
        return float('inf')
    low, high = logits.double().aminmax()
    chosen = logits.gather(1, labels[:, None])[:, 0]
    return float((logits.amax(dim=1) - chosen).max() / (high - low).clamp(min=torch.finfo(torch.float).tiny))


def _compare_detections(
    expected: Mapping[str, Tensor], found: Mapping[str, Tensor], score_thr: float
) -> tuple[dict[str, str], list[str]]:
    agreement = Agreement(score_thr)
    for i in range(len(expected['boxes'])):
        agreement.add(*({name: x[i] for name, x in side.items()} for side in (expected, found)))
    row = dict(detections=f'{agreement.count}', unmatched=f'{agreement.unmatched}')
    row |= dict(boxes=f'{agreement.pixels:.1e} pixels', scores=f'{agreement.score:.1e}')
    problems = [f'{agreement.unmatched} detections, beside {agreement.count}, have no partner'] * bool(
        agreement.unmatched
    )
    if 'masks' in expected:
        row['masks'] = f'{agreement.mask:.1e}'
        problems += [f'masks deviate by {agreement.mask:.1e}'] * (agreement.mask > MASK)
    return row, problems


def _markdown(rows: list[dict[str, str]]) -> str:
    lines = [list(rows[0]), ['---'] * len(rows[0]), *(list(row.values()) for row in rows)]
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)
