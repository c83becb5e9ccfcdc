import math

import numpy as np
import pytest
import torch
from torch import nn

from fedmia.signals.forward import evaluate, loss_and_gap


def of(logits: list[float], label: int) -> tuple[float, float]:
    loss, gap = loss_and_gap(torch.tensor([logits]), torch.tensor([label]))
    return float(loss), float(gap)


def test_three_equal_logits_give_log_three_and_minus_log_two():
    assert of([1.0, 1.0, 1.0], 2) == pytest.approx((math.log(3), -math.log(2)), abs=1e-15)


def test_two_logits_give_their_difference_as_the_gap():
    loss, gap = of([0.5, 2.5], 1)
    assert gap == 2.0
    assert loss == pytest.approx(math.log1p(math.exp(-2)), abs=1e-15)


def test_loss_is_the_cross_entropy_and_gap_the_log_odds():
    torch.manual_seed(0)
    logits, y = torch.randn(50, 7) * 5, torch.randint(7, (50,))
    loss, gap = loss_and_gap(logits, y)
    p = logits.double().softmax(1)[torch.arange(50), y]
    torch.testing.assert_close(loss, -p.log())
    torch.testing.assert_close(gap, (p / (1 - p)).log())
    assert loss.dtype == gap.dtype == torch.float64


def test_very_confident_candidates_are_not_tied():
    losses = [of([margin, 0.0], 0)[0] for margin in (30.0, 40.0, 50.0, 100.0)]
    assert losses == pytest.approx([math.exp(-m) for m in (30, 40, 50, 100)], rel=1e-6)


def test_a_hopeless_candidate_loses_its_margin():
    assert of([1000.0, 0.0], 1) == (1000.0, -1000.0)


def test_what_is_not_finite_stays_so():
    assert all(map(math.isnan, of([math.nan, 0.0], 0)))
    assert of([0.0, math.inf], 0) == (math.inf, -math.inf)


def test_chunks_make_no_difference():
    torch.manual_seed(0)
    model, x, y = nn.Linear(3, 4), torch.randn(10, 3), torch.randint(4, (10,))
    whole, pieces = evaluate(model, x, y, 10), evaluate(model, x, y, 3)
    np.testing.assert_allclose(pieces, whole, rtol=1e-5)
    assert pieces[0].shape == (10,)
