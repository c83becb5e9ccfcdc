"""Attacks on one model, by hand: confidence, entropies, gradient norm, calibrated loss."""

import numpy as np
import pytest
from scipy.special import log_softmax
from signal_worlds import Models, Shadows, Signals, ask, view

from fedmia.attacks.base import Knowledge, NotApplicableError
from fedmia.attacks.calibrated_loss import CalibratedLoss
from fedmia.attacks.confidence import Confidence
from fedmia.attacks.entropy import Entropy
from fedmia.attacks.grad_norm import GradNorm
from fedmia.attacks.modified_entropy import ModifiedEntropy
from fedmia.attacks.yeom_loss import YeomLoss
from fedmia.metrics import auc
from fedmia.records import Examples

LOCAL = [[[1.0, 2.0], [5, 5]], [[3.0, 4.0], [6, 6]], [[np.nan] * 2, [7, 8]]]
PRESENT = [[1, 1], [1, 1], [0, 1]]


@pytest.mark.parametrize(
    ("attack", "signal", "expected"),
    [
        (Confidence(), "logit_gap_global", [3, 4]),
        (Entropy(), "entropy_global", [-3, -4]),
        (ModifiedEntropy(), "mentr_global", [-3, -4]),
        (GradNorm(), "grad_norm", [-3, -4]),
        (GradNorm("last"), "last_layer_norm_global", [-3, -4]),
    ],
    ids=str,
)
def test_the_last_global_model_serves_every_target(attack, signal, expected):
    seen = view(**{signal: [[1.0, 2.0], [3.0, 4.0]]})

    for target in (10, 30, None):
        assert ask(attack, seen, target).tolist() == expected


@pytest.mark.parametrize(
    ("attack", "signal", "sign"),
    [
        (Confidence(model="local"), "logit_gap_local", 1),
        (Entropy("local"), "entropy_local", -1),
        (ModifiedEntropy("local"), "mentr_local", -1),
        (GradNorm("all", "local"), "grad_norm_local", -1),
        (GradNorm("last", "local"), "last_layer_norm_local", -1),
    ],
    ids=str,
)
def test_the_last_local_model_that_the_target_sent(attack, signal, sign):
    seen = view((10, 20), PRESENT, **{signal: LOCAL})

    assert ask(attack, seen, 10).tolist() == [sign * 3, sign * 4]
    assert ask(attack, seen, 20).tolist() == [sign * 7, sign * 8]


# confidence


def test_confidence_is_log_p_of_the_softmax():
    z = np.random.default_rng(0).normal(scale=3, size=(50, 4))
    gap = z[:, 1] - np.log(np.exp(np.delete(z, 1, axis=1)).sum(axis=1))
    seen = view(logit_gap_global=gap[None])

    assert np.allclose(ask(Confidence("confidence"), seen, n=50), log_softmax(z, axis=1)[:, 1])
    assert ask(Confidence(), seen, n=50).tolist() == gap.tolist()


@pytest.mark.parametrize("measure", ["logit_gap", "confidence"])
def test_confidence_ranks_as_the_loss_does_and_never_ties(measure):
    gap = np.linspace(-300, 300, 401)
    seen = view(logit_gap_global=gap[None], loss_global=np.logaddexp(0, -gap)[None])

    scores = ask(Confidence(measure), seen, n=401)

    assert (np.diff(scores) > 0).all()
    assert (np.argsort(scores) == np.argsort(ask(YeomLoss(), seen, n=401))).all()
    saturated = 1 / (1 + np.exp(-gap))
    assert len(np.unique(saturated)) < 401


# modified entropy, a threshold for each class


def classes(counts):
    y = np.repeat(np.arange(len(counts)), counts)
    return Examples(np.arange(len(y), dtype=np.float32)[:, None], y)


def test_a_class_with_thirty_auxiliary_records_has_its_own_threshold():
    auxiliary = classes([31, 29, 1, 1])
    known = np.concatenate([np.linspace(1, 3, 31), np.full(29, 10.0), [1.0, 12.0]])
    seen = view(mentr_global=[[9.0] * 4, [1.5] * 4])
    seen.signals.others = Signals(mentr_global=np.array([known + 100, known]))
    records = Examples(np.zeros((4, 1), np.float32), np.array([0, 1, 2, 3]))
    attack = ModifiedEntropy(thresholds="per_class")

    scores = ask(attack, seen, None, records, Knowledge(auxiliary, 4))

    pooled = np.median(known)
    assert scores == pytest.approx([2 - 1.5, *[pooled - 1.5] * 3])
    assert pooled not in (2.0, 10.0)


@pytest.mark.parametrize(("counts", "said"), [([31, 0, 31], "1"), ([40], "1, 2")])
def test_a_threshold_for_a_class_without_auxiliary_records_is_refused(counts, said):
    auxiliary, records = classes(counts), classes([1, 1, 1])
    seen = view(mentr_global=[[1.0] * 3])
    seen.signals.others = Signals(mentr_global=np.ones((1, len(auxiliary))))
    attack = ModifiedEntropy(thresholds="per_class")

    with pytest.raises(NotApplicableError) as refusal:
        ask(attack, seen, None, records, Knowledge(auxiliary, 3))

    line = "needs auxiliary records of every class for thresholds=per_class, has none of class "
    assert str(refusal.value) == line + said
    attack.check_records(auxiliary, records[:1])
    ModifiedEntropy().check_records(auxiliary, records)


def test_local_thresholds_come_from_the_same_local_model():
    auxiliary = classes([30])
    known = np.arange(3 * 2 * 30, dtype=float).reshape(3, 2, 30)
    seen = view((10, 20), PRESENT, mentr_local=LOCAL)
    seen.signals.others = Signals(mentr_local=known)
    attack = ModifiedEntropy("local", "per_class")

    scores = ask(attack, seen, 10, knowledge=Knowledge(auxiliary, 1))

    assert scores.tolist() == [np.median(known[1, 0]) - 3, np.median(known[1, 0]) - 4]


def test_thresholds_put_easy_and_hard_classes_on_one_scale():
    rng = np.random.default_rng(0)
    auxiliary, records = classes([200, 200]), classes([300, 300])
    members = np.arange(600) % 2 == 0
    hard = 4.0 * records.y
    mentr = hard + rng.exponential(size=600) - 0.8 * members + 1
    seen = view(mentr_global=mentr[None])
    known = 4.0 * auxiliary.y + rng.exponential(size=400) + 1
    seen.signals.others = Signals(mentr_global=known[None])
    knowledge = Knowledge(auxiliary, 2)

    plain = auc(ask(ModifiedEntropy(), seen, None, records, knowledge), members)
    apart = auc(
        ask(ModifiedEntropy(thresholds="per_class"), seen, None, records, knowledge), members
    )

    assert apart > plain + 0.1


# calibrated loss


def numbered(n):
    return Examples(np.arange(n, dtype=np.float32)[:, None], np.arange(n) % 2)


@pytest.mark.parametrize("measure", ["loss", "logit_gap"])
def test_calibrated_loss_subtracts_the_mean_over_reference_models(measure):
    losses = np.array([[1.0, 2.0, 0.5], [3.0, 2.5, 0.25]])
    target = np.array([0.5, 4.0, 0.125])

    def s(loss):
        return -loss if measure == "loss" else -np.log(np.expm1(loss))

    seen = view(
        loss_global=[[9.0] * 3, target], logit_gap_global=[[9.0] * 3, -np.log(np.expm1(target))]
    )
    knowledge = Knowledge(numbered(0), 2, shadows=Shadows(Models(losses)))

    scores = ask(CalibratedLoss(measure), seen, None, numbered(3), knowledge)

    assert scores == pytest.approx(s(target) - s(losses).mean(axis=0), abs=1e-6)


def test_local_references_start_from_the_model_of_the_targets_last_round():
    seen = view((10, 20), PRESENT, sizes=[7, 9], loss_local=LOCAL, logit_gap_local=LOCAL)
    shadows = Shadows(Models([[1.0, 2.0]]))
    knowledge = Knowledge(numbered(0), 2, shadows=shadows)
    attack = CalibratedLoss(model="local")

    assert ask(attack, seen, 10, numbered(2), knowledge) == pytest.approx([-3 + 1, -4 + 2])
    assert ask(attack, seen, 20, numbered(2), knowledge) == pytest.approx([-7 + 1, -8 + 2])
    assert shadows.asked == [(1.0, 7), (2.0, 9)]


def test_calibration_finds_members_where_difficulty_hides_them():
    rng = np.random.default_rng(0)
    members, difficulty = np.arange(400) % 2 == 0, rng.gamma(2.0, 2.0, size=400) + 1
    target = difficulty + rng.normal(scale=0.2, size=400) - 0.5 * members
    references = difficulty + rng.normal(scale=0.2, size=(8, 400))
    seen = view(loss_global=target[None], logit_gap_global=-target[None])
    knowledge = Knowledge(numbered(0), 2, shadows=Shadows(Models(np.maximum(references, 0.01))))

    plain = auc(ask(YeomLoss(), seen, None, numbered(400)), members)
    calibrated = auc(ask(CalibratedLoss(), seen, None, numbered(400), knowledge), members)

    assert plain < 0.65
    assert calibrated > 0.9


def test_what_trains_models_is_not_repeated_for_the_curve():
    assert not CalibratedLoss.cheap
