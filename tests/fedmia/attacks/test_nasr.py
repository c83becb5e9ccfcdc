"""The white-box attack: exact features, a planted leak, a null, and what it cannot do."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from fedmia.attacks import nasr
from fedmia.attacks.base import Knowledge, NotApplicableError, View
from fedmia.attacks.nasr import Nasr
from fedmia.attacks.white_box import watch
from fedmia.attacks.white_box_network import Gradient
from fedmia.errors import ConfigError
from fedmia.knowledge import ShadowFederation
from fedmia.metrics import auc
from fedmia.records import Capability, Examples, Observation, Update, difference
from fedmia.signals import Signals
from fedmia.training import FlatModel, LocalSGD
from fedmia.transcript import Transcript, TranscriptWriter
from fedmia.vantages import Participant, Server

CLIENTS, EACH, OUTSIDE, ROUNDS, FEATURES = 4, 16, 120, 3, 12
KINDS = {
    "known": Nasr("known", rounds=2, epochs=40),
    "shadow": Nasr("shadow", rounds=2, epochs=20),
    "unsupervised": Nasr("none", rounds=2, epochs=15),
    "shadow, two layers": Nasr("shadow", rounds=1, layers=2, epochs=20),
    "shadow, global": Nasr("shadow", "global", rounds=2, epochs=20),
    "unsupervised, global": Nasr("none", "global", rounds=2, epochs=15),
}
LOCAL = {name: attack for name, attack in KINDS.items() if attack.model == "local"}

every_kind = pytest.mark.parametrize("attack", KINDS.values(), ids=KINDS)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# features


class CNN(nn.Module):
    """A convolution used twice, one with a stride, an activation in place, a dense layer."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(2, 2, 3, padding=1)
        self.second = nn.Conv2d(2, 3, 3, stride=2, bias=False)
        self.relu = nn.ReLU(inplace=True)
        self.last = nn.Linear(3 * 2 * 2, 4)

    def forward(self, x):
        x = self.relu(self.first(self.relu(self.first(x))))
        return self.last(self.relu(self.second(x)).flatten(1))


def gradients(model, x, y):
    """Return each record's gradient of weight and bias, by layer from the end, one by one."""
    rows = []
    for i in range(len(y)):
        model.zero_grad()
        cross_entropy(model(x[i : i + 1]), y[i : i + 1]).backward()
        found = []
        for layer in [m for m in model.modules() if hasattr(m, "weight")][::-1]:
            bias = [] if layer.bias is None else [layer.bias.grad[:, None]]
            found.append(torch.cat([layer.weight.grad.flatten(1), *bias], 1).clone())
        rows.append(found)
    return [torch.stack(layer) for layer in zip(*rows, strict=True)]


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (lambda: CNN(), (2, 5, 5)),
        (lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 4, bias=False)), (6,)),
    ],
    ids=["cnn", "mlp"],
)
def test_factors_multiply_to_the_gradients_that_autograd_gives(model, shape):
    torch.manual_seed(0)
    model, layers = model(), 3 if len(shape) == 3 else 2
    rng = np.random.default_rng(0)
    records = Examples(rng.normal(size=(7, *shape)).astype(np.float32), rng.integers(4, size=7))
    x, y = torch.tensor(records.x), torch.tensor(records.y)

    seen = watch(SimpleNamespace(model=lambda t, k, into: model), records, [(0, None)], layers)

    squares = 0
    for i, expected in enumerate(gradients(model, x, y)):
        made = torch.einsum("npo,npi->noi", seen[f"delta_{i}"][:, 0], seen[f"input_{i}"][:, 0])
        assert torch.allclose(made, expected, atol=1e-6)
        squares = squares + expected.double().square().sum((1, 2))
    loss = cross_entropy(model(x), y, reduction="none").double()
    p = model(x).double().softmax(1)
    log_loss, right, own, entropy, norm = seen["summary"][:, 0].double().T
    assert torch.allclose(log_loss.exp(), loss, atol=1e-6)
    assert torch.equal(right.bool(), p.argmax(1) == y)
    assert torch.allclose(own, p[range(7), y], atol=1e-6)
    assert torch.allclose(entropy, -(p * p.log()).sum(1) / np.log(4), atol=1e-6)
    assert torch.allclose(norm.exp(), squares.sqrt(), atol=1e-6)
    assert torch.equal(seen["label"][:, 0].argmax(1), y)
    assert torch.allclose(seen["logits"][:, 0], model(x))


def test_gradients_stay_apart_where_a_probability_rounds_to_one():
    model = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    records = Examples(np.array([[30, 0], [40, 0]], np.float32), np.zeros(2, np.int64))

    seen = watch(SimpleNamespace(model=lambda t, k, into: model), records, [(0, None)], 1)

    # ‖p − e_y‖ = √2 e^{−z}, times ‖h‖ = z
    expected = [np.sqrt(2) * np.exp(-z) * z for z in (30, 40)]
    assert seen["summary"][:, 0, 4].exp().tolist() == pytest.approx(expected, rel=1e-4)


def test_the_convolution_is_that_of_the_gradient_written_out():
    torch.manual_seed(0)
    delta, inputs = torch.randn(5, 2, 3, 4), torch.randn(5, 2, 3, 6)
    component = Gradient(delta, inputs)
    gradient = torch.einsum("ntpo,ntpi->ntoi", delta, inputs) * component.scale
    convolution = nn.Conv2d(2, 16, (1, 6), bias=False)
    with torch.no_grad():
        convolution.weight.copy_(component.kernels.permute(2, 0, 1)[:, :, None])

        expected = convolution(gradient).squeeze(3).transpose(1, 2)

    assert torch.allclose(component.convolve(delta, inputs), expected, atol=1e-5)


# federations that really were trained, on labels that are pure chance


def run(folder, seed, present=None):
    """Train a federation and return it with its owners in a random order."""
    rng = np.random.default_rng(seed)
    n = CLIENTS * EACH + OUTSIDE
    records = Examples(rng.normal(size=(n, FEATURES)).astype(np.float32), rng.integers(2, size=n))
    owner = rng.permutation(np.repeat([*range(CLIENTS), -1], [EACH] * CLIENTS + [OUTSIDE]))
    torch.manual_seed(0)
    model = FlatModel(nn.Sequential(nn.Linear(FEATURES, 24), nn.ReLU(), nn.Linear(24, 2)))
    recipe, writer = LocalSGD(4, 4, 0.1), TranscriptWriter(folder, "server", Server.shows)
    params, nodes = model.params(), tuple(range(100, 100 + CLIENTS))
    for t in range(1, ROUNDS + 1):
        updates = []
        for k, node in enumerate(nodes):
            own = records[owner == k]
            model.load(params)
            recipe.fit(model, torch.tensor(own.x), torch.tensor(own.y), rng)
            if present is None or present[t - 1][k]:
                updates.append(Update(node, EACH, difference(model.params(), params)))
        writer.append(Observation(t, params, nodes, tuple(updates)))
        params = {
            name: value + np.mean([u.delta[name] for u in updates], axis=0)
            for name, value in params.items()
        }
    writer.finish(params)
    transcript = Transcript(folder)
    signals = Signals(transcript, model.module, records, None)
    return ShadowFederation(View(transcript, signals), records, nodes, owner)


class Shadows:
    seconds = 0.0

    def __init__(self, *federations):
        self.kept = federations

    def transcripts(self):
        return self.kept


@pytest.fixture(scope="module")
def attacked(tmp_path_factory):
    return run(tmp_path_factory.mktemp("attacked"), 0)


@pytest.fixture(scope="module")
def shadows(tmp_path_factory):
    return Shadows(*(run(tmp_path_factory.mktemp("shadow"), seed) for seed in (1, 2)))


def knows(federation, k, shadows, known=8, owner=None):
    owner = federation.owner if owner is None else owner
    members, others = (np.flatnonzero(owner == i)[:known] for i in (k, -1))
    return Knowledge(federation.candidates[:0], 2, members, others, shadows=shadows)


def measured(attack, federation, shadows, owner=None):
    """Return the AUC of members against records that nobody held, known ones left out."""
    owner = federation.owner if owner is None else owner
    scores, inside = [], []
    for k, node in enumerate(federation.nodes):
        own = knows(federation, k, shadows, owner=owner)
        s = attack(federation.view, node, federation.candidates, own)
        members = owner >= 0 if attack.model == "global" else owner == k
        judged = members | (owner == -1)
        if attack.training == "known":
            judged[np.concatenate([own.known_members, own.known_nonmembers])] = False
        scores.append(s[judged])
        inside.append(members[judged])
    return auc(np.concatenate(scores), np.concatenate(inside))


@every_kind
def test_a_planted_leak_is_found(attack, attacked, shadows):
    assert measured(attack, attacked, shadows) > (0.55 if attack.training == "none" else 0.6)


@every_kind
def test_records_that_nobody_trained_on_are_not_found(attack, attacked, shadows):
    """The null: the records asked about are strangers, some of them said to be members."""
    rng = np.random.default_rng(7)
    n = 400
    strangers = Examples(rng.normal(size=(n, FEATURES)).astype(np.float32), rng.integers(2, size=n))
    owner = np.repeat([*range(CLIENTS), -1], [50] * CLIENTS + [200])
    view = View(attacked.view.transcript, attacked.view.signals.of(strangers))
    said = ShadowFederation(view, strangers, attacked.nodes, owner)

    assert measured(attack, said, shadows, owner) == pytest.approx(0.5, abs=0.1)


@every_kind
def test_a_record_that_the_model_fits_better_scores_higher(attack, attacked, shadows):
    """The same records, half of them with the label that the models do not predict."""
    signals = attacked.view.signals
    column = None if attack.model == "global" else 0
    right = signals.logits(-1, column).argmax(1)
    fitted = Examples(attacked.candidates.x, right)
    badly = Examples(attacked.candidates.x, 1 - right)
    both = Examples(np.concatenate([fitted.x, badly.x]), np.concatenate([fitted.y, badly.y]))
    view = View(attacked.view.transcript, signals.of(both))
    known = knows(attacked, 0, shadows)
    if attack.training == "known":  # the known records with the labels that they have
        view, both = attacked.view, Examples(attacked.candidates.x, attacked.candidates.y)
        better = right == both.y
    else:
        better = np.arange(len(both)) < len(right)

    scores = attack(view, attacked.nodes[0], both, known)

    assert scores[better].mean() > scores[~better].mean()


def test_clusters_are_told_apart_by_the_loss_where_fitted_records_have_larger_gradients(tmp_path):
    """Label 0, logits W x: 5 units along one side of W with a gap of 0.3, or 1 with a gap of -1."""
    model = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[0.06, -1.0], [0.0, 0.0]]))
    writer = TranscriptWriter(tmp_path, "final_model", [Capability.GLOBAL_MODEL])
    writer.finish({"weight": model.weight.detach().numpy()})
    rng = np.random.default_rng(0)
    centres = np.repeat([[5.0, 0.0], [0.0, 1.0]], 60, axis=0)
    x = (centres + rng.normal(scale=0.05, size=centres.shape)).astype(np.float32)
    records = Examples(x, np.zeros(120, np.int64))
    transcript = Transcript(tmp_path)
    view = View(transcript, Signals(transcript, model, records, None))
    norms, losses = view.signals.grad_norm[0], view.signals.loss_global[0]
    assert norms[:60].min() > norms[60:].max()
    assert losses[:60].max() < losses[60:].min()

    attack = Nasr("none", "global", rounds=1)
    scores = attack(view, None, records, Knowledge(records[:0], 2))

    assert scores[:60].min() > scores[60:].max()


@every_kind
def test_scores_follow_the_order_of_the_candidates_and_are_the_same_twice(
    attack, attacked, shadows
):
    order = np.random.default_rng(0).permutation(len(attacked.owner))
    turned = attacked.candidates[order]
    known = knows(attacked, 0, shadows)
    position = np.argsort(order)
    moved = Knowledge(
        known.auxiliary,
        2,
        position[known.known_members][::-1],
        position[known.known_nonmembers],
        shadows=shadows,
    )
    view = View(attacked.view.transcript, attacked.view.signals.of(turned))
    node = attacked.nodes[0]

    once = attack(attacked.view, node, attacked.candidates, known)
    again = attack(attacked.view, node, attacked.candidates, known)
    permuted = attack(view, node, turned, moved)

    assert once.tobytes() == again.tobytes()
    assert np.allclose(permuted, once[order], rtol=1e-3, atol=1e-3)
    assert len(np.unique(once)) > 100


def test_one_network_serves_all_targets_but_not_another_seed(attacked, shadows):
    asked = []
    counting = Shadows()
    counting.transcripts = lambda: asked.append(1) or shadows.kept
    attack, node = Nasr(rounds=1, epochs=1), attacked.nodes[0]

    for k, other in enumerate(attacked.nodes):
        attack(attacked.view, other, attacked.candidates, knows(attacked, k, counting))
    first = attack(attacked.view, node, attacked.candidates, knows(attacked, 0, counting))
    seeded = Knowledge(attacked.candidates[:0], 2, shadows=counting, seed=1)

    assert len(asked) == 1
    assert (attack(attacked.view, node, attacked.candidates, seeded) != first).any()


@pytest.mark.parametrize("model", ["local", "global"])
def test_one_auto_encoder_serves_all_targets(attacked, shadows, monkeypatch, model):
    taught, learn = [], nasr.embedding
    monkeypatch.setattr(nasr, "embedding", lambda *given: taught.append(1) or learn(*given))
    attack = Nasr("none", model, rounds=1, epochs=2)

    scores = [
        attack(attacked.view, node, attacked.candidates, knows(attacked, k, shadows)).tolist()
        for k, node in enumerate(attacked.nodes)
    ]

    assert len(taught) == 1
    assert len({tuple(row) for row in scores}) == (CLIENTS if model == "local" else 1)


def test_the_federation_as_a_whole_is_asked_about_with_global_models(attacked, shadows):
    attack, known = KINDS["shadow, global"], knows(attacked, 0, shadows)

    whole = attack(attacked.view, None, attacked.candidates, known)

    one = attack(attacked.view, attacked.nodes[2], attacked.candidates, known)
    assert whole.tolist() == one.tolist()


def test_the_last_rounds_that_the_target_took_part_in_are_looked_at(tmp_path):
    away = run(tmp_path, 5, present=[[1, 1, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]])
    asked = []
    signals = SimpleNamespace(
        nodes=away.nodes,
        present=away.view.signals.present,
        rounds_global=(1, 2, 3, None),
        model=lambda t, k, into: asked.append((t, k)) or away.view.signals.model(t, k, into),
    )
    view, few = View(away.view.transcript, signals), away.candidates[:3]

    Nasr(rounds=1).watch(view, 100, few)
    Nasr(rounds=3).watch(view, 100, few)
    Nasr(rounds=2, model="global").watch(view, 100, few)

    assert asked == [(2, 0), *[(0, 0), (0, 0), (2, 0)], *[(2, None), (-1, None)]]


# what it cannot do, it says


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"training": "some"}, "training=some: expected known, shadow or none"),
        ({"model": "best"}, "model=best: expected local or global"),
        ({"rounds": 0}, "rounds=0: expected at least 1"),
        ({"layers": 0}, "layers=0: expected at least 1"),
        ({"epochs": 0}, "epochs=0: expected at least 1"),
        ({"learning_rate": 0.0}, "learning_rate=0.0: expected more than 0"),
    ],
)
def test_settings_that_do_not_exist_are_refused(settings, said):
    with pytest.raises(ConfigError) as caught:
        Nasr(**settings)

    assert str(caught.value) == said


def test_what_is_missing_is_named(attacked, shadows):
    for attack, missing in [
        (Nasr(), "client updates"),
        (Nasr("known", "global"), "known members"),
        (Nasr("shadow", "global"), "shadow training"),
    ]:
        with pytest.raises(NotApplicableError, match=f"needs {missing}"):
            attack.check_applicable("participant", Participant.shows)
    Nasr("none", "global").check_applicable("participant", Participant.shows)

    ask = (attacked.candidates, knows(attacked, 0, shadows))
    with pytest.raises(NotApplicableError, match="none of this target was seen"):
        Nasr("none")(attacked.view, None, *ask)
    with pytest.raises(
        NotApplicableError, match=r"needs 3 dense or convolutional layers; .* has 2"
    ):
        Nasr("none", layers=3)(attacked.view, attacked.nodes[0], *ask)
