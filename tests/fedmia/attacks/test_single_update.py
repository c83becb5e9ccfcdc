"""Attacks that hold one client's updates against records, by hand and against naive twins."""

import numpy as np
import pytest
import torch
from scipy.stats import mannwhitneyu
from signal_worlds import Shadows, ask, view, world

from fedmia.attacks import grad_diff_scaled
from fedmia.attacks.base import Knowledge, NotApplicableError
from fedmia.attacks.calibrated_loss_clients import CalibratedLossClients
from fedmia.attacks.grad_cosine import GradCosine
from fedmia.attacks.grad_diff import GradDiff
from fedmia.attacks.grad_diff_scaled import GradDiffScaled, step_weight
from fedmia.attacks.layer_selection import LayerSelection, separation
from fedmia.attacks.source_inference import SourceInference
from fedmia.records import Examples
from fedmia.training import FlatModel, LocalSGD

ABSENT = [np.nan] * 2
PRESENT = [[1, 1, 1], [1, 1, 0], [0, 1, 1]]


def test_grad_cosine_takes_the_last_round_of_the_target_and_not_the_best():
    cosine = [
        [[0.9, 0.8], [0, 0], [0, 0]],
        [[0.25, -0.5], [0, 0], ABSENT],
        [ABSENT, [1, 1], [1, 1]],
    ]

    assert ask(GradCosine(), view(present=PRESENT, cosine=cosine)).tolist() == [0.25, -0.5]


# gradient difference


@pytest.fixture(scope="module")
def vectors():
    """Two rounds of four gradients and two updates, and what they make of signals."""
    rng = np.random.default_rng(0)
    g, u = rng.normal(size=(2, 4, 6)), rng.normal(size=(2, 2, 6))
    inner = np.einsum("tnd,tkd->tkn", g, u)
    seen = view((10, 20), sizes=[7, 12], inner=inner, grad_norm=np.linalg.norm(g, axis=-1))
    return g, u, seen


@pytest.mark.parametrize("k", [0, 1])
@pytest.mark.parametrize("rounds", ["last", "mean"])
def test_grad_diff_is_what_the_update_loses_in_length(vectors, rounds, k):
    g, u, seen = vectors
    naive = (u[:, k] ** 2).sum(axis=1)[:, None] - ((u[:, None, k] - g) ** 2).sum(axis=2)

    scores = ask(GradDiff(rounds), seen, seen.signals.nodes[k], n=4)

    expected = naive[-1] if rounds == "last" else naive.mean(axis=0)
    assert scores == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("k", [0, 1])
@pytest.mark.parametrize("rounds", ["last", "mean"])
def test_grad_diff_scaled_does_so_for_the_sum_of_gradients(vectors, rounds, k):
    g, u, seen = vectors
    N = [7, 12][k]
    # two epochs of three or four steps with momentum one half: Σ (1 − 2⁻ˢ) / ½ = 2S − 2 + 2¹⁻ˢ
    steps = 2 * [3, 4][k]
    B = u[:, k] / (0.1 * (2 * steps - 2 + 2.0 ** (1 - steps)))
    naive = ((N * B) ** 2).sum(axis=1)[:, None] - ((N * B[:, None] - g) ** 2).sum(axis=2)
    attack = GradDiffScaled(rounds, lr=0.1, momentum=0.5, local_epochs=2, batch_size=3)

    scores = ask(attack, seen, seen.signals.nodes[k], n=4)

    expected = naive[-1] if rounds == "last" else naive.mean(axis=0)
    assert scores == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9])
@pytest.mark.parametrize(("epochs", "batch"), [(1, 8), (5, 3)])
def test_step_weight_is_how_far_sgd_goes_along_a_constant_gradient(momentum, epochs, batch):
    class Slope(torch.nn.Module):
        """Logits whose cross-entropy has next to the same gradient wherever the weight stands."""

        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return torch.cat([self.w * 1e-4 * x, torch.zeros_like(x)], dim=1)

    model = FlatModel(Slope())
    x, y = torch.ones(8, 1), torch.zeros(8, dtype=torch.int64)
    LocalSGD(epochs, batch, 0.1, momentum).fit(model, x, y, np.random.default_rng(0))
    moved = model.flat.item() / (0.5 * 1e-4)

    assert step_weight(0.1, momentum, epochs * -(-8 // batch)) == pytest.approx(moved, rel=1e-5)


def test_step_weight_tends_to_the_effective_learning_rate_times_steps():
    assert step_weight(0.1, 0.9, 1) == pytest.approx(0.1)
    assert step_weight(0.1, 0.9, 10_000) == pytest.approx(0.1 / 0.1 * 10_000, rel=1e-3)


def test_members_and_others_lie_on_both_sides_of_zero_where_gradients_are_orthogonal():
    g = np.eye(6) * np.arange(1, 7)[:, None]
    mean = g[:3].mean(axis=0)
    lr, steps = 0.1, 3  # without momentum, one record a step
    seen = view(
        (10,),
        sizes=[3],
        inner=[[g @ (mean * lr * steps)]],
        grad_norm=[np.linalg.norm(g, axis=1)],
    )
    attack = GradDiffScaled(lr=lr, momentum=0.0, local_epochs=1, batch_size=1)

    assert ask(attack, seen, n=6) == pytest.approx([1, 4, 9, -16, -25, -36])


@pytest.mark.parametrize("missing", ["lr", "momentum", "local_epochs", "batch_size"])
def test_a_recipe_that_is_not_known_gives_no_score(vectors, missing):
    recipe = {"lr": 0.1, "momentum": 0.0, "local_epochs": 1, "batch_size": 2, missing: None}

    with pytest.raises(NotApplicableError, match=f"{missing}.* of the recipe"):
        ask(GradDiffScaled(**recipe), vectors[2], n=4)


def test_a_rounds_updates_are_read_once_for_all_targets(vectors):
    grad_diff_scaled._num_examples.cache_clear()
    recipe = {"lr": 0.1, "momentum": 0.0, "local_epochs": 1, "batch_size": 2}

    for target in (10, 20, 10):
        ask(GradDiffScaled("mean", **recipe), vectors[2], target, n=4)

    assert grad_diff_scaled._num_examples.cache_info().misses == 2


# the other clients of the same round

LOSS = [
    [[1.0, 2.0], [3, 1], [5, 4]],
    [[2.0, 2.0], [1, 5], ABSENT],
    [ABSENT, [7, 7], [7, 7]],
]


def test_calibrated_by_other_clients_is_the_mean_over_the_targets_rounds():
    seen = view(present=PRESENT, loss_local=LOSS, logit_gap_local=-np.array(LOSS))

    # round 1: 4 − 1, 2.5 − 2; round 2: 1 − 2, 5 − 2
    for measure in ("loss", "logit_gap"):
        assert ask(CalibratedLossClients(measure), seen).tolist() == [(3 - 1) / 2, (0.5 + 3) / 2]
        assert ask(CalibratedLossClients(measure, "last"), seen).tolist() == [-1, 3]


def test_source_inference_is_the_margin_over_the_best_other():
    seen = view(present=PRESENT, loss_local=LOSS)

    assert ask(SourceInference(), seen).tolist() == [-1, 3]
    assert ask(SourceInference("mean"), seen).tolist() == [(2 - 1) / 2, (-1 + 3) / 2]
    assert ask(SourceInference(), seen, 30).tolist() == [0, 0]


def test_the_highest_margin_is_the_lowest_loss_and_the_only_positive_one():
    loss = np.random.default_rng(0).exponential(size=(3, 5, 40))
    seen = view(range(5), loss_local=loss)

    margins = np.stack([ask(SourceInference(), seen, node, n=40) for node in range(5)])

    assert (margins.argmax(axis=0) == loss[-1].argmin(axis=0)).all()
    assert ((margins > 0).sum(axis=0) == 1).all()


@pytest.mark.parametrize("attack", [CalibratedLossClients(), SourceInference()], ids=str)
def test_rounds_without_others_are_left_out(attack):
    seen = view((10, 20), [[1, 1], [1, 0]], loss_local=[[[1.0, 2.0], [3, 1]], [[9, 9], ABSENT]])

    assert ask(attack, seen).tolist() == [2, -1]
    with pytest.raises(NotApplicableError, match="the target and another client"):
        ask(attack, view((10, 20), [[1, 0]], loss_local=[[[1.0, 2.0], ABSENT]]))


# layers


def test_separation_is_the_mann_whitney_statistic_ties_half():
    scores = np.random.default_rng(0).integers(5, size=(3, 30)).astype(float)
    members = np.arange(30) % 3 == 0

    for row, found in zip(scores, separation(scores, members), strict=True):
        naive = mannwhitneyu(row[members], row[~members]).statistic / (10 * 20)
        assert found == pytest.approx(naive, abs=1e-12)
    assert separation(np.arange(4.0), np.array([0, 0, 1, 1], bool)) == 1
    assert separation(np.ones(4), np.array([0, 0, 1, 1], bool)) == 0.5


@pytest.fixture(scope="module")
def layered():
    """One client, one round, two weights and a bias; the second weight tells, the bias more."""
    g = np.array([[[1.0, 2.0, 4.0, 2.0], [2.0, 1.0, 2.0, 4.0], [1.0, 1.0, 1.0, 1.0]]])
    inner = np.array([[[[1.0, -1.0, 2.0, 3.0], [2.0, 0.5, 0.4, -1.0], [9.0, 9.0, -9.0, -9.0]]]])
    u = np.array([[[2.0, 2.0, 1.0]]])
    return view((10,), parameter_inner=inner, parameter_norm=g, parameter_update_norm=u)


def told():
    """Say that of candidates 0 … 3 the first two are members."""
    records = Examples(np.zeros((4, 1), np.float32), np.zeros(4, np.int64))
    return records, Knowledge(records[:0], 2, np.array([0, 1]), np.array([2, 3]))


def test_layer_cosine_of_the_layer_chosen_by_hand(layered):
    records, knowledge = told()

    scores = ask(LayerSelection(validation="known"), layered, 10, records, knowledge)

    # first layer: .5, −.25 | .25, .75; second: .5, .25 | .1, −.125
    assert scores == pytest.approx([2 / 4, 0.5 / 2, 0.4 / 4, -1 / 8])


def test_layer_grad_diff_is_scaled_to_the_validated_members(layered):
    records, knowledge = told()
    attack = LayerSelection("grad_diff", "known")

    scores = ask(attack, layered, 10, records, knowledge)

    c = (2**2 + 1**2) / (2 + 0.5)
    inner, g = np.array([2, 0.5, 0.4, -1]), np.array([2, 1, 2, 4])
    assert scores == pytest.approx(2 * c * inner - g**2)


def test_a_layer_where_members_point_the_other_way_is_left_to_its_norm(layered):
    members = np.array([False, True, False, False])
    attack = LayerSelection("grad_diff", "known")
    seen = attack.products(layered, 10)

    _, c = attack.choose([(seen, members)])

    assert c.tolist() == [0, 2]
    assert attack.by_layer(seen, c)[0].tolist() == [-1, -4, -16, -4]


def test_a_layer_without_gradient_has_cosine_zero(layered):
    attack = LayerSelection(validation="known")
    seen = attack.products(layered, 10)
    seen.g[0, 0, 2] = seen.inner[0, 0, 2] = 0

    assert attack.by_layer(seen, np.ones(2))[0, 2] == 0


def test_the_layer_is_chosen_on_shadow_clients_once_and_never_a_bias():
    made, shadows = world(1), Shadows(None, (world(5).federation, world(6).federation))
    attack = LayerSelection()
    first = made.candidates[:0]
    layers = []
    for position, node in enumerate(made.nodes):
        knowledge = Knowledge(first, 2, np.array([position]), shadows=shadows)
        score = attack(made.view, node, made.candidates, knowledge)
        by_layer = attack.by_layer(attack.products(made.view, node), np.ones(2))
        layers += [i for i in range(2) if np.array_equal(by_layer[i], score)]

    # the first layer is drowned in noise, and the bias, which tells most, is none of the two
    assert layers == [1] * 6


def test_shadows_without_a_client_that_was_seen_are_refused():
    made, shadow = world(1), world(5).federation
    shadow.view.signals.nodes = tuple(range(900, 906))
    knowledge = Knowledge(made.candidates[:0], 2, shadows=Shadows(None, (shadow,)))

    with pytest.raises(NotApplicableError, match="needs a shadow federation's client"):
        LayerSelection()(made.view, 100, made.candidates, knowledge)


def test_a_model_of_biases_alone_is_refused(layered):
    layered.signals.parameters = ("bias",)
    records, knowledge = told()
    try:
        with pytest.raises(NotApplicableError, match="no bias"):
            ask(LayerSelection(validation="known"), layered, 10, records, knowledge)
    finally:
        layered.signals.parameters = ("first.weight", "second.weight", "second.bias")
