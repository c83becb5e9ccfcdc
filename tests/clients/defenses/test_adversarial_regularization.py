"""The attack beside the model climbs, the model descends what it gains, and D' is left alone."""

import numpy as np
import pytest
import torch
from local_training import context, copied, data, fitted, network, session
from torch.nn.functional import cross_entropy, logsigmoid, one_hot

from clients.defenses.adversarial_regularization import (
    AdversarialRegularization,
    inference_network,
    inputs,
)
from fedmia.errors import ConfigError
from fedmia.training import LocalSGD

STATE = "adversarial_regularization"


def kept(defense, n=10, partition_id=0, seed=3):
    """The numbers of the records that a client trains on; all have another content."""
    x, y = data(n)
    left, _ = session(defense, (x, y), at=context(partition_id), seed=seed).records(x, y)
    return [int((x == row).flatten(1).all(1).nonzero()) for row in left]


def test_the_attack_sees_probabilities_and_label():
    seen = inputs(torch.tensor([[0.0, 0.0], [50.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    assert torch.allclose(seen, torch.tensor([[0.5, 0.5, 1, 0], [1, 0, 0, 1]]))
    assert inference_network(2, [4, 3])(seen).shape == (2,)


def test_the_same_records_are_held_out_in_every_round_others_elsewhere():
    defense = AdversarialRegularization(reference=0.3)
    assert len(kept(defense)) == 7
    assert kept(defense) == kept(defense, seed=4)
    assert kept(defense) != kept(defense, partition_id=1)
    assert len(kept(AdversarialRegularization(reference=0.001))) == 9
    assert len(kept(AdversarialRegularization(reference=0.999))) == 1


def test_no_step_of_the_model_is_taken_on_a_reference_record():
    x, y = data()
    defense = AdversarialRegularization(1e-9, reference=0.5)
    rest = kept(defense)
    recipe = LocalSGD(local_epochs=2, batch_size=100, lr=0.1)
    found, _ = fitted(defense, recipe, records=(x, y))
    wanted, _ = fitted(None, recipe, records=(x[rest], y[rest]))
    assert torch.allclose(found.flat, wanted.flat, atol=1e-6)


def test_a_step_descends_the_loss_and_what_the_attack_gains():
    (x, y), net, at = data(), network(), context()
    defense = AdversarialRegularization(4.0, 0.3, hidden=[5])
    recipe = LocalSGD(local_epochs=1, batch_size=100, lr=0.5, momentum=0.0)
    before = net.flat.clone()
    _, loss = fitted(defense, recipe, net=net, at=at)

    h = inference_network(3, [5])  # as it is after its one step, before that of the model
    h.load_state_dict(
        {k: torch.tensor(v.numpy()) for k, v in at.state.array_records[STATE].items()}
    )
    module, rest = network().module, kept(defense)
    logits, labels = module(x[rest]), one_hot(y[rest], 3)
    gain = logsigmoid(h(inputs(logits, labels))).mean()
    wanted = cross_entropy(logits, y[rest]) + 2 * gain
    gradients = torch.autograd.grad(wanted, list(module.parameters()))
    step = torch.cat([g.flatten() for g in gradients])
    assert torch.allclose(net.flat, before - 0.5 * step, atol=1e-6)
    assert loss == pytest.approx(float(wanted.detach()), rel=1e-5)


def test_the_attack_learns_to_tell_what_the_model_was_trained_on():
    records, at = data(12), context()
    weak = AdversarialRegularization(1e-9, 0.5, steps=2, hidden=[16], learning_rate=1e-2)
    net, _ = fitted(weak, LocalSGD(100, 6, lr=0.1), records=records, at=at)
    h = inference_network(3, [16])
    h.load_state_dict(
        {k: torch.tensor(v.numpy()) for k, v in at.state.array_records[STATE].items()}
    )
    (x, y), inside = records, kept(weak, 12)
    odds = h(inputs(net.module(x), one_hot(y, 3))).detach()
    members = torch.zeros(12, dtype=torch.bool)
    members[inside] = True
    assert odds[members].min() > odds[~members].median()
    assert odds[members].mean() > 0 > odds[~members].mean()


def test_a_heavy_attack_keeps_the_model_from_memorising():
    def certainty(weight):
        records = data(12)
        defense = AdversarialRegularization(weight, 0.5, 5, [16], 1e-2)
        net, _ = fitted(defense, LocalSGD(60, 6, lr=0.1), records=records)
        (x, y), inside = records, kept(defense, 12)
        return float(net.module(x).softmax(1)[inside, y[inside]].mean())

    assert certainty(1e-9) > 0.95
    assert certainty(10.0) < certainty(1e-9) - 0.1


def test_the_attack_goes_on_in_the_next_round_also_in_a_fresh_process():
    defense = AdversarialRegularization(hidden=[5])
    at = context()
    fitted(defense, at=at)
    first = [v.numpy() for v in at.state.array_records[STATE].values()]
    elsewhere = copied(at)
    nets = [fitted(defense, at=where, seed=4)[0] for where in (at, elsewhere)]
    fresh, _ = fitted(defense, at=context(), seed=4)
    assert torch.equal(nets[0].flat, nets[1].flat)
    assert not torch.equal(nets[0].flat, fresh.flat)
    second = [v.numpy() for v in at.state.array_records[STATE].values()]
    assert any(not np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_a_client_with_one_record_is_refused_before_training():
    AdversarialRegularization().check_records([2, 0, 30])
    with pytest.raises(ConfigError, match=r"^reference=0\.3: expected clients with two records"):
        AdversarialRegularization().check_records([20, 1])


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"weight": 0.0}, r"weight=0\.0: expected more than 0 and finite"),
        ({"reference": 1.0}, r"reference=1\.0: expected in \(0, 1\)"),
        ({"steps": 0}, "steps=0: expected at least 1"),
        ({"hidden": [0]}, r"hidden=\[0\]: expected one or more positive integers"),
        ({"learning_rate": 0.0}, r"learning_rate=0\.0: expected more than 0 and finite"),
        ({"learning_rate": np.inf}, r"learning_rate=inf: expected more than 0 and finite"),
    ],
)
def test_values_out_of_range_are_refused_in_one_line(settings, line):
    with pytest.raises(ConfigError, match=f"^{line}$"):
        AdversarialRegularization(**settings)
