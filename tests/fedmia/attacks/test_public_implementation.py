"""Scores beside those of the Adversarial Robustness Toolbox, from the same model and records.

Its attacks decide for a single model, so the transcript here holds nothing but a final model.
"""

import numpy as np
import pytest
import torch
from art.attacks.inference.membership_inference import (
    MembershipInferenceBlackBox,
    MembershipInferenceBlackBoxRuleBased,
)
from art.estimators.classification import PyTorchClassifier
from torch import nn

from fedmia.attacks.base import Knowledge, View
from fedmia.attacks.confidence import Confidence
from fedmia.attacks.yeom_loss import YeomLoss
from fedmia.models.mlp import MLP
from fedmia.records import Capability, Examples
from fedmia.signals import Signals
from fedmia.transcript import Transcript, TranscriptWriter

CLASSES, RECORDS = 3, 240


@pytest.fixture(scope="module")
def records():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(RECORDS, 6)).astype(np.float32)
    return Examples(x, rng.integers(CLASSES, size=RECORDS))


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return MLP(hidden=[8])((6,), CLASSES)


@pytest.fixture(scope="module")
def view(tmp_path_factory, model, records):
    folder = tmp_path_factory.mktemp("transcript")
    shows = [Capability.GLOBAL_MODEL]
    TranscriptWriter(folder, "final_model", shows).finish(
        {k: v.numpy() for k, v in model.state_dict().items()}
    )
    transcript = Transcript(folder)
    return View(transcript, Signals(transcript, model, records, None))


@pytest.fixture(scope="module")
def classifier(model):
    return PyTorchClassifier(model, nn.CrossEntropyLoss(reduction="none"), (6,), CLASSES)


def ask(attack, view, records):
    return attack(view, None, records, Knowledge(records[:0], CLASSES))


def test_yeom_loss_orders_the_records_of_a_class_as_its_attack_on_losses(view, classifier, records):
    ours = ask(YeomLoss(), view, records)
    order = np.argsort(ours)
    low, high = order[:60], order[-60:]
    theirs = MembershipInferenceBlackBox(classifier, input_type="loss", attack_model_type="lr")
    theirs.fit(records.x[high], records.y[high], records.x[low], records.y[low])

    # It is a logistic regression on loss and class: monotone in the loss where classes are equal.
    probability = theirs.infer(records.x, records.y, probabilities=True).ravel()

    for label in range(CLASSES):
        own = order[records.y[order] == label]
        assert len(own) > 50
        assert (np.diff(probability[own]) > -1e-6).all()
        assert probability[own[-1]] > probability[own[0]]


def test_confidence_is_above_zero_where_its_rule_says_member(view, classifier, records):
    ours = ask(Confidence(), view, records)

    theirs = MembershipInferenceBlackBoxRuleBased(classifier).infer(records.x, records.y)

    # The rule asks whether the label is predicted; with more than two classes, φ > 0 is stronger.
    assert 0 < theirs.sum() < RECORDS
    assert theirs[ours > 0].all()
    assert (ours[theirs == 0] < 0).all()
