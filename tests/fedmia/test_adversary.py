from types import SimpleNamespace

import numpy as np
import pytest

from fedmia.adversary import knowledge
from fedmia.attacks.base import Attack, NotApplicableError, View
from fedmia.config import compose
from fedmia.preparation import prepare
from fedmia.records import Capability

SMALL = [
    "dataset=breast_cancer",
    "model=logistic",
    "pool=serial",
    "num_clients=3",
    "num_rounds=2",
    "partition.samples_per_client=20",
    "candidates.nonmembers=100",
]
NOBODY = (np.zeros(0, np.int64), np.zeros(0, np.int64))


def told(known, *overrides, path="nowhere"):
    stage = prepare(compose([*SMALL, *overrides]))
    seen = View(SimpleNamespace(path=path), SimpleNamespace())
    return stage, knowledge(stage, seen, known)


def test_targets_about_whom_nothing_is_known_share_one_value(tmp_path):
    stage, (first, second) = told([NOBODY, NOBODY], path=tmp_path)

    assert first is second, "or what is trained once would be trained for every target"
    assert first.auxiliary is stage.auxiliary
    assert first.num_classes == 2
    assert first.gives == {Capability.AUXILIARY, Capability.RECIPE, Capability.SHADOWS}


def test_each_target_has_its_own_known_members_and_the_same_shadows(tmp_path):
    members, others = np.array([3, 1]), np.array([2, 5])

    _, (first, second) = told([(members, others), NOBODY], path=tmp_path)

    assert first.known_members.tolist() == [3, 1]
    assert first.known_nonmembers.tolist() == [2, 5]
    assert len(second.known_members) == 0
    assert first.shadows is second.shadows
    assert first.gives - second.gives == {Capability.KNOWN_MEMBERS}


@pytest.mark.parametrize(
    ("override", "gives"),
    [
        ("knowledge.recipe=false", {Capability.AUXILIARY}),
        ("knowledge.auxiliary=0", {Capability.RECIPE}),
    ],
)
def test_what_is_switched_off_is_not_there(override, gives, tmp_path):
    stage, (known,) = told([NOBODY], override, path=tmp_path)

    assert known.shadows is None
    assert known.gives == stage.gives == gives


def test_shadows_are_those_of_the_federation_and_of_the_settings(tmp_path):
    stage, (known,) = told([NOBODY], "knowledge.shadow_models=3", path=tmp_path)

    references = known.shadows.federations()

    assert len(references) == 3
    assert references.held(known.auxiliary).sum(axis=1).tolist() == [3 * 20] * 3
    evaluated = stage.dataset.examples(stage.candidates.index)
    assert not references.held(evaluated).any()
    assert known.shadows.seconds > 0


def test_the_adversary_s_randomness_follows_from_the_seed_alone(tmp_path):
    _, (known,) = told([NOBODY], path=tmp_path)
    _, (again,) = told([NOBODY], path=tmp_path)
    _, (other,) = told([NOBODY], "seed=1", path=tmp_path)

    draws = [k.rng("x").random() for k in (known, known, again, other)]

    assert draws[0] == draws[1] == draws[2] != draws[3]
    assert known.rng("y").random() != draws[0]


class Wanting(Attack):
    needs = frozenset({Capability.GLOBAL_MODEL, Capability.AUXILIARY, Capability.RECIPE})
    reference = "nobody"

    def score(self, view, target, candidates, knowledge):
        raise AssertionError("must not be asked")


def test_what_the_adversary_lacks_is_said_apart_from_what_the_vantage_does_not_show():
    shown = frozenset({Capability.GLOBAL_MODEL})

    with pytest.raises(NotApplicableError) as caught:
        Wanting().check_applicable("server", shown)
    assert str(caught.value) == (
        "needs auxiliary records, the training recipe, which the adversary has not (see knowledge)"
    )
    with pytest.raises(NotApplicableError) as caught:
        Wanting().check_applicable("wire", frozenset({Capability.AUXILIARY}))
    assert str(caught.value) == "needs the global model; vantage 'wire' shows nothing"
    Wanting().check_applicable("server", shown | {Capability.AUXILIARY, Capability.RECIPE})
