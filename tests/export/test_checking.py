"""What the check of an exported file calls equal."""

import pytest
import torch
from torch import Tensor

from deformable_vit.export.agreement import Agreement
from deformable_vit.export.checking import compare_outputs, deviation_of, label_deviation


def detections(*rows: tuple[float, float, float, float, float, int], places: int = 6) -> dict[str, Tensor]:
    """Return detections (x1, y1, x2, y2, score, label), with empty places behind them."""
    table = torch.zeros(places, 6, dtype=torch.float64)
    table[:, 5] = -1
    table[: len(rows)] = torch.tensor(rows, dtype=torch.float64).view(-1, 6)
    return dict(boxes=table[:, :4].float(), scores=table[:, 4].float(), labels=table[:, 5].long())


def compared(a: dict[str, Tensor], b: dict[str, Tensor]) -> Agreement:
    agreement = Agreement(score_thr=0.1)
    agreement.add(a, b)
    return agreement


A = (10, 10, 110, 110, 0.9, 0)
B = (10, 10, 110, 110, 0.8, 1)
C = (200, 10, 300, 110, 0.5, 0)
LAST = (0, 200, 100, 300, 0.1004, 2)


def test_deviation_is_a_fraction_of_the_range() -> None:
    expected = torch.tensor([-1.0, 0.0, 3.0])
    assert deviation_of(expected, torch.tensor([-1.0, 0.2, 2.9])) == pytest.approx(0.05)
    assert deviation_of(expected, expected) == 0
    assert deviation_of(expected, expected[:2]) == torch.inf


def test_nan_is_a_problem() -> None:
    x = torch.tensor([[0.0, 1.0]])
    for a, b in ((x, x * torch.nan), (x * torch.nan, x), (x, x + 2e-4)):
        assert compare_outputs(dict(logits=a), dict(logits=b))[1] != []
    assert compare_outputs(dict(logits=x), dict(logits=x + 5e-5))[1] == []


def test_labels_may_differ_where_logits_are_equal() -> None:
    logits = torch.tensor([[0.0, 4.0, 1.0], [0.0, 0.0, 3.0]]).view(1, 2, 1, 3)
    assert label_deviation(logits, torch.tensor([[[1, 0, 1]]])) == 0
    assert label_deviation(logits, torch.tensor([[[0, 0, 0]]])) == pytest.approx(0.5)
    assert label_deviation(logits, torch.tensor([[[0, 0]]])) == torch.inf
    assert compare_outputs(dict(logits=logits), dict(label_map=torch.tensor([[[0, 0, 0]]])))[1] != []


def test_equal_detections_in_another_order() -> None:
    agreement = compared(detections(A, B, C, LAST), detections(B, LAST, C, A))
    assert (agreement.count, agreement.unmatched, agreement.pixels, agreement.score) == (4, 0, 0, 0)


def test_partners_have_one_class_nearly_one_box_and_one_score() -> None:
    for other in ((*A[:5], 1), (*A[:4], 0.898, 0), (10, 10, 110, 112, 0.9, 0)):
        assert compared(detections(A, C, LAST), detections(other, C, LAST)).unmatched == 2
    moved = compared(detections(A, C, LAST), detections((10, 10, 110, 110.5, 0.8995, 0), C, LAST))
    assert moved.unmatched == 0
    assert moved.pixels == pytest.approx(0.5)
    assert moved.score == pytest.approx(5e-4, rel=1e-3)


def test_boxes_that_clipping_leaves_without_an_area_have_partners() -> None:
    a, b = (0, 10, 0, 110, 0.9, 0), (0, 10.005, 0, 110, 0.9, 0)
    assert compared(detections(a, a, C), detections(a, b, C)).unmatched == 0
    assert compared(detections(a, C), detections((0, 10.02, 0, 110, 0.9, 0), C)).unmatched == 2


def test_a_detection_has_one_partner() -> None:
    assert compared(detections(A, C), detections(A, A, C)).unmatched == 1
    assert compared(detections(A, A, C), detections(A, C)).unmatched == 1


def test_missing_and_additional_detections() -> None:
    assert compared(detections(A, B, C, LAST), detections(A, C, LAST)).unmatched == 1
    assert compared(detections(A, C, LAST), detections(A, B, C, LAST)).unmatched == 1
    assert compared(detections(A), detections()).unmatched == 1
    assert compared(detections(), detections()).unmatched == 0


def test_rounding_keeps_or_drops_a_detection_at_the_threshold() -> None:
    assert compared(detections(A, LAST), detections(A)).unmatched == 0
    assert compared(detections(A), detections(A, LAST)).unmatched == 0
    assert compared(detections(A, C), detections(A)).unmatched == 1


def test_rounding_selects_one_of_the_last_of_a_full_list() -> None:
    other = (300, 300, 400, 400, 0.5004, 1)
    assert compared(detections(A, C, places=2), detections(A, other, places=2)).unmatched == 0
    assert compared(detections(A, B, C, places=3), detections(A, other, C, places=3)).unmatched == 1


def test_masks_are_those_of_partners() -> None:
    a, b = detections(A, B, C), detections(B, A, C)
    a['masks'] = torch.arange(6.0).view(6, 1, 1).expand(6, 2, 2) / 10
    b['masks'] = a['masks'][[1, 0, 2, 3, 4, 5]]
    assert compared(a, b).mask == 0
    b['masks'] = b['masks'] + 0.25
    assert compared(a, b).mask == pytest.approx(0.25)
    batch = ({name: x[None] for name, x in side.items()} for side in (a, b))
    row, problems = compare_outputs(*batch)
    assert row['masks'] == '2.5e-01'
    assert len(problems) == 1
