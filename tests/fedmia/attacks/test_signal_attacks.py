"""What holds for each attack that reads signals: direction, leak, null, order, refusals."""

import numpy as np
import pytest
from signal_worlds import Shadows, permuted, view, world

from fedmia.attacks.base import Knowledge, NotApplicableError
from fedmia.attacks.calibrated_loss import CalibratedLoss
from fedmia.attacks.calibrated_loss_clients import CalibratedLossClients
from fedmia.attacks.confidence import Confidence
from fedmia.attacks.entropy import Entropy
from fedmia.attacks.grad_cosine import GradCosine
from fedmia.attacks.grad_diff import GradDiff
from fedmia.attacks.grad_diff_scaled import GradDiffScaled
from fedmia.attacks.grad_norm import GradNorm
from fedmia.attacks.jump import Jump
from fedmia.attacks.layer_selection import LayerSelection
from fedmia.attacks.modified_entropy import ModifiedEntropy
from fedmia.attacks.source_inference import SourceInference
from fedmia.attacks.update_correlation import UpdateCorrelation
from fedmia.errors import ConfigError
from fedmia.metrics import auc
from fedmia.records import Examples
from fedmia.vantages import Aggregate, FinalModel, MaskedServer, Participant

RECIPE = {"lr": 3.0, "momentum": 0.0, "local_epochs": 1, "batch_size": 15}
GLOBAL = {
    "confidence": Confidence(),
    "confidence p_y": Confidence("confidence"),
    "entropy": Entropy(),
    "modified_entropy": ModifiedEntropy(),
    "modified_entropy per_class": ModifiedEntropy(thresholds="per_class"),
    "grad_norm": GradNorm(),
    "grad_norm last": GradNorm("last"),
    "calibrated_loss": CalibratedLoss(),
    "calibrated_loss gap": CalibratedLoss("logit_gap"),
}
PER_CLIENT = {
    "confidence local": Confidence(model="local"),
    "entropy local": Entropy("local"),
    "modified_entropy local": ModifiedEntropy("local"),
    "modified_entropy local per_class": ModifiedEntropy("local", "per_class"),
    "grad_norm local": GradNorm(model="local"),
    "grad_norm last local": GradNorm("last", "local"),
    "calibrated_loss local": CalibratedLoss(model="local"),
    "calibrated_loss_clients": CalibratedLossClients(),
    "calibrated_loss_clients last": CalibratedLossClients("logit_gap", "last"),
    "grad_cosine": GradCosine(),
    "grad_diff": GradDiff(),
    "grad_diff mean": GradDiff("mean"),
    "grad_diff_scaled": GradDiffScaled(**RECIPE),
    "grad_diff_scaled mean": GradDiffScaled("mean", **RECIPE),
    "layer_cosine": LayerSelection(),
    "layer_cosine known": LayerSelection(validation="known"),
    "layer_grad_diff": LayerSelection("grad_diff"),
    "layer_grad_diff last": LayerSelection("grad_diff", rounds="last"),
    "jump": Jump(),
    "jump cusum": Jump("cusum"),
    "update_correlation": UpdateCorrelation(),
    "source_inference": SourceInference(),
    "source_inference mean": SourceInference("mean"),
}
ATTACKS = GLOBAL | PER_CLIENT
every_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
per_client = pytest.mark.parametrize("attack", PER_CLIENT.values(), ids=PER_CLIENT)


def with_auxiliary(made, seed):
    """Give the signals those of auxiliary records, who are nobody's members."""
    other = world(seed, leak=False)
    keep = np.flatnonzero(other.owner == -1)
    few = permuted(other, keep)
    made.view.signals.others = few.view.signals
    made.auxiliary = few.candidates
    made.shadows = Shadows(made.models, (world(seed + 1).federation, world(seed + 2).federation))
    return made


@pytest.fixture(scope="module")
def leaky():
    return with_auxiliary(world(1), 11)


@pytest.fixture(scope="module")
def innocent():
    return with_auxiliary(world(2, leak=False), 22)


def knowledge(made, target):
    position = made.nodes.index(target) if target in made.nodes else 0
    inside, outside = (np.flatnonzero(mask) for mask in (made.owner == position, made.owner == -1))
    return Knowledge(
        made.auxiliary, 2, inside[:5], outside[:40], recipe=True, shadows=made.shadows
    ), np.concatenate([inside[:5], outside[:40]])


def scores(attack, made):
    """Return scores and membership of pairs of targets and candidates that are asked about."""
    found, members = [], []
    nodes = [None] if attack in GLOBAL.values() else made.nodes
    for k, node in enumerate(nodes):
        known, told = knowledge(made, node)
        score = attack(made.view, node, made.candidates, known)
        asked = np.setdiff1d(np.arange(len(score)), told)
        inside = made.owner >= 0 if node is None else made.owner == k
        rest = made.owner == -1
        asked = asked[(inside | rest)[asked]]
        found.append(score[asked])
        members.append(inside[asked])
    return np.concatenate(found), np.concatenate(members)


@every_attack
def test_a_planted_leak_is_found(leaky, attack):
    assert auc(*scores(attack, leaky)) > (0.6 if attack in GLOBAL.values() else 0.65)


@every_attack
def test_without_a_leak_the_curve_is_near_a_half(innocent, attack):
    score, members = scores(attack, innocent)

    assert abs(auc(score, members) - 0.5) < 0.09
    assert len(np.unique(score)) > 100


@every_attack
def test_candidates_in_another_order_get_the_same_scores(leaky, attack):
    order = np.random.default_rng(0).permutation(len(leaky.candidates))
    turned, back = permuted(leaky, order), np.argsort(order)
    target = None if attack in GLOBAL.values() else leaky.nodes[2]
    known, _ = knowledge(leaky, target)
    moved = Knowledge(
        known.auxiliary,
        2,
        back[known.known_members],
        back[known.known_nonmembers],
        recipe=True,
        shadows=known.shadows,
    )

    there = attack(turned.view, target, turned.candidates, moved)

    assert np.allclose(there, attack(leaky.view, target, leaky.candidates, known)[order], atol=1e-9)


@every_attack
def test_asked_twice_the_answer_is_the_same_to_the_bit(leaky, attack):
    target = None if attack in GLOBAL.values() else leaky.nodes[1]
    known, _ = knowledge(leaky, target)

    first = attack(leaky.view, target, leaky.candidates, known)

    assert attack(leaky.view, target, leaky.candidates, known).tobytes() == first.tobytes()


@per_client
@pytest.mark.parametrize("target", [None, 99], ids=["nobody in particular", "unseen"])
def test_a_target_whose_updates_were_not_seen_is_not_guessed_at(leaky, attack, target):
    known, _ = knowledge(leaky, target)

    with pytest.raises(NotApplicableError, match="none of this target was seen"):
        attack(leaky.view, target, leaky.candidates, known)


@per_client
def test_a_target_that_has_not_taken_part_yet_is_not_applicable(leaky, attack):
    made = permuted(leaky, np.arange(len(leaky.candidates)))
    made.view.signals.present = made.view.signals.present.copy()
    made.view.signals.present[:, 0] = False
    known, _ = knowledge(made, made.nodes[0])

    with pytest.raises(NotApplicableError, match="round"):
        attack(made.view, made.nodes[0], made.candidates, known)


@per_client
@pytest.mark.parametrize("kind", [Aggregate, Participant, FinalModel], ids=lambda kind: kind.name)
def test_a_vantage_without_updates_is_told_what_is_missing(leaky, attack, kind):
    known, _ = knowledge(leaky, None)
    narrow = view(loss_global=[[1.0]], kind=kind)

    with pytest.raises(NotApplicableError, match=rf"client updates.*'{kind.name}' shows "):
        attack(narrow, 10, leaky.candidates, known)


@per_client
def test_a_server_that_sees_only_sums_is_told_which_defence_hides_the_rest(leaky, attack):
    known, _ = knowledge(leaky, None)
    narrow = view(loss_global=[[1.0]], kind=MaskedServer("secagg_plus"))
    line = r"^needs client updates,.* vantage 'server' under secagg_plus shows only their sum$"

    with pytest.raises(NotApplicableError, match=line):
        attack(narrow, 10, leaky.candidates, known)


@pytest.mark.parametrize("attack", GLOBAL.values(), ids=GLOBAL)
def test_attacks_on_the_global_model_run_on_the_final_one_alone(leaky, attack):
    records = Examples(np.array([[0.0], [1.0]], np.float32), np.array([1, 1]))
    one = view(("none",), kind=FinalModel, loss_global=[[0.5, 1.0]])
    signals = vars(one.signals)
    for name in ("entropy_global", "mentr_global", "last_layer_norm_global", "grad_norm"):
        signals[name] = np.array([[0.5, 1.0]])
    signals["logit_gap_global"] = -np.log(np.expm1([[0.5, 1.0]]))
    signals["others"] = leaky.view.signals.others
    shadows = Shadows(type(leaky.models)([[1.0, 1.0]]))

    first, second = attack(one, None, records, Knowledge(leaky.auxiliary, 2, shadows=shadows))

    assert first > second


@pytest.mark.parametrize(
    ("attack", "missing"),
    [
        (ModifiedEntropy(thresholds="per_class"), "auxiliary records"),
        (ModifiedEntropy("local", "per_class"), "auxiliary records"),
        (CalibratedLoss(), "shadow training"),
        (CalibratedLoss(model="local"), "shadow training"),
        (LayerSelection(), "shadow training"),
        (LayerSelection(validation="known"), "known members"),
    ],
    ids=str,
)
def test_knowledge_that_is_missing_is_named(leaky, attack, missing):
    with pytest.raises(NotApplicableError, match=f"^needs {missing}, which the adversary has not"):
        attack(leaky.view, 100, leaky.candidates, Knowledge(leaky.candidates[:0], 2))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Confidence("best"), "measure=best: expected logit_gap or confidence"),
        (lambda: Confidence(model="best"), "model=best: expected global or local"),
        (lambda: Entropy("best"), "model=best: expected global or local"),
        (lambda: ModifiedEntropy("best"), "model=best: expected global or local"),
        (
            lambda: ModifiedEntropy(thresholds="best"),
            "thresholds=best: expected none or per_class",
        ),
        (lambda: GradNorm("best"), "layers=best: expected all or last"),
        (lambda: GradNorm(model="best"), "model=best: expected global or local"),
        (lambda: CalibratedLoss("best"), "measure=best: expected loss or logit_gap"),
        (lambda: CalibratedLoss(model="best"), "model=best: expected global or local"),
        (lambda: CalibratedLossClients("best"), "measure=best: expected loss or logit_gap"),
        (lambda: CalibratedLossClients(rounds="best"), "rounds=best: expected last or mean"),
        (lambda: GradDiff("best"), "rounds=best: expected last or mean"),
        (lambda: GradDiffScaled("best"), "rounds=best: expected last or mean"),
        (lambda: GradDiffScaled(lr=0.0), "lr=0.0: expected more than 0 and finite"),
        (lambda: GradDiffScaled(momentum=1.0), "momentum=1.0: expected in [0, 1)"),
        (lambda: GradDiffScaled(local_epochs=0), "local_epochs=0: expected at least 1"),
        (lambda: GradDiffScaled(batch_size=0), "batch_size=0: expected at least 1"),
        (lambda: LayerSelection("best"), "measure=best: expected cosine or grad_diff"),
        (lambda: LayerSelection(validation="best"), "validation=best: expected shadow or known"),
        (lambda: LayerSelection(rounds="best"), "rounds=best: expected last or mean"),
        (lambda: Jump("best"), "statistic=best: expected difference or cusum"),
        (lambda: SourceInference("best"), "rounds=best: expected last or mean"),
    ],
)
def test_settings_that_do_not_exist_are_refused(make, said):
    with pytest.raises(ConfigError) as caught:
        make()

    assert str(caught.value) == said
