"""What is refused before any training, and what is left to the attack's own row."""

import numpy as np
import pytest

from fedmia.attacks.base import NotApplicableError
from fedmia.config import compose
from fedmia.errors import ConfigError
from fedmia.preparation import prepare

ONLINE = ["attack=lira", "attack.lira_online.variance=per_example"]


def refusal(*overrides):
    with pytest.raises(ConfigError) as caught:
        prepare(compose(["pool=serial", *overrides]))
    return str(caught.value)


def test_a_variance_of_its_own_takes_eight_models_that_hold_the_record():
    """16 federations of 200 of 1,100 candidates: 2 or 3 hold one."""
    said = (
        "expected at least {} for attack.lira_online (of all candidates a shadow federation holds "
        "18.2%, a client 1.8%)"
    )

    assert refusal(*ONLINE) == f"knowledge.shadow_models=16: {said.format(44)}"
    local = refusal(*ONLINE, "attack.lira_online.model=local", "knowledge.shadow_models=100")
    assert local == f"knowledge.shadow_models=100: {said.format(440)}"
    prepare(compose(["pool=serial", *ONLINE, "knowledge.shadow_models=44"]))


def test_a_federation_of_half_of_the_candidates_serves_with_half_of_the_models():
    large = ["dataset=breast_cancer", *ONLINE]

    prepare(compose(["pool=serial", *large]))
    said = "knowledge.shadow_models=15: expected at least 16 for attack.lira_online"
    assert refusal(*large, "knowledge.shadow_models=15") == said


def test_thresholds_for_classes_without_auxiliary_records_are_refused_where_nothing_else_runs():
    poor = ["knowledge.domain=other", "dataset@knowledge.other=wine", "attack=modified_entropy"]

    stage = prepare(compose(["pool=serial", *poor]))  # the other row does without

    with pytest.raises(NotApplicableError, match=r"has none of class 3, 4, 5, 6, 7, …$"):
        stage.attacks["modified_entropy_per_class"].check_records(
            stage.auxiliary, stage.dataset.examples(np.sort(stage.candidates.index))
        )
    assert refusal(*poor, "~attack.modified_entropy") == (
        "attack=modified_entropy_per_class: needs auxiliary records of every class for "
        "thresholds=per_class, has none of class 3, 4, 5, 6, 7, …"
    )
