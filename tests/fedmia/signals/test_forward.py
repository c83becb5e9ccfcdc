import math

import numpy as np
import pytest
import torch
from torch import nn

from fedmia.signals.forward import entropies, evaluate, loss_and_gap


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


def both(logits, label):
    entropy, mentr = entropies(torch.tensor([logits]), torch.tensor([label]))
    return float(entropy), float(mentr)


def test_entropies_of_three_quarters_worked_out_by_hand():
    # p = (3/4, 1/4): Mentr(p, 0) = -1/4 log 3/4 - 1/4 log 3/4 and Mentr(p, 1) = -2 · 3/4 log 1/4.
    logits = [math.log(3), 0.0]
    entropy = -0.75 * math.log(0.75) - 0.25 * math.log(0.25)
    assert both(logits, 0) == pytest.approx((entropy, -0.5 * math.log(0.75)), rel=1e-6)
    assert both(logits, 1) == pytest.approx((entropy, -1.5 * math.log(0.25)), rel=1e-6)


def test_equal_logits_have_the_largest_entropy():
    # p = 1/4: Mentr = -3/4 log 1/4 - 3/4 log 3/4.
    mentr = -0.75 * (math.log(0.25) + math.log(0.75))
    assert both([2.0] * 4, 3) == pytest.approx((math.log(4), mentr), abs=1e-15)


def test_entropies_agree_with_their_definitions():
    torch.manual_seed(0)
    logits, y = torch.randn(50, 7) * 3, torch.randint(7, (50,))
    p = logits.double().softmax(1)
    own = p[torch.arange(50), y]
    naive = -(1 - own) * own.log() - (p * (1 - p).log()).sum(1) + own * (1 - own).log()
    entropy, mentr = entropies(logits, y)
    torch.testing.assert_close(entropy, -(p * p.log()).sum(1), rtol=1e-9, atol=0)
    torch.testing.assert_close(mentr, naive, rtol=1e-9, atol=0)
    assert entropy.dtype == mentr.dtype == torch.float64


@pytest.mark.parametrize("margin", [30.0, 40.0, 100.0, 700.0])
def test_entropies_of_confident_candidates_keep_their_digits(margin):
    # With q = 1 - p_top = e^{-m}: H = q (m + 1) and Mentr = 2 q² where right, to first order.
    q = math.exp(-margin)
    entropy, right = both([margin, 0.0], 0)
    assert entropy == pytest.approx(q * (margin + 1), rel=1e-12)
    assert right == pytest.approx(2 * q * q, rel=1e-12)
    assert both([margin, 0.0], 1)[1] == pytest.approx(2 * margin, rel=1e-12)


def test_a_hopeless_candidate_has_finite_entropies():
    assert both([5000.0, 0.0, -5000.0], 1) == (0.0, 10000.0)


def test_a_better_fit_has_a_lower_modified_entropy_whatever_the_plain_one_says():
    logits = [[margin, 0.0, 0.0] for margin in (-3.0, -1.0, 0.0, 1.0, 3.0)]
    mentr = [both(z, 0)[1] for z in logits]
    assert mentr == sorted(mentr, reverse=True)
    assert both([3.0, 0.0, 0.0], 0)[0] == both([3.0, 0.0, 0.0], 1)[0]


def test_what_is_not_finite_stays_so():
    assert all(map(math.isnan, of([math.nan, 0.0], 0)))
    assert of([0.0, math.inf], 0) == (math.inf, -math.inf)


def test_chunks_make_no_difference():
    torch.manual_seed(0)
    model, x, y = nn.Linear(3, 4), torch.randn(10, 3), torch.randint(4, (10,))
    whole, pieces = evaluate(model, x, y, 10), evaluate(model, x, y, 3)
    np.testing.assert_allclose(pieces, whole, rtol=1e-5)
    assert pieces[0].shape == (10,)
