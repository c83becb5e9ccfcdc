"""Training of attack networks: the optimiser, standardisation, and balanced lessons."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from fedmia.attacks.base import NotApplicableError
from fedmia.attacks.networks import Standardise, lessons, log_odds, seeded, train


def shadows(*federations):
    kept = [SimpleNamespace(nodes=nodes, owner=np.array(owner)) for nodes, owner in federations]
    return SimpleNamespace(transcripts=lambda: kept)


def test_training_takes_the_steps_of_adamw():
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.normal(size=(50, 3)), dtype=torch.float32)
    y = x @ torch.tensor([1.0, -2.0, 0.5])
    ours, theirs = nn.Linear(3, 1), nn.Linear(3, 1)
    theirs.load_state_dict(ours.state_dict())

    def loss(network, rows):
        return (network(x[rows]).squeeze(1) - y[rows]).square().mean()

    train(ours, lambda rows: loss(ours, rows), 50, np.random.default_rng(1), 3, 0.05, 16, 0.1)

    again = np.random.default_rng(1)
    with seeded(again):
        optimiser = torch.optim.AdamW(theirs.parameters(), 0.05, weight_decay=0.1)
        for _ in range(3):
            for rows in torch.split(torch.from_numpy(again.permutation(50)), 16):
                optimiser.zero_grad()
                loss(theirs, rows).backward()
                optimiser.step()
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(mine, other, atol=1e-6)


def test_training_leaves_the_global_generator_alone_and_evaluation_mode_behind():
    x = torch.randn(20, 4)
    before = torch.get_rng_state()
    trained = []
    for _ in range(2):
        rng = np.random.default_rng(3)
        with seeded(rng):
            network = log_odds((8,), x)
        train(network, lambda rows, n=network: n(x[rows]).square().mean(), 20, rng, 2, 0.01)
        trained.append(network(x))

    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(*trained)
    assert not network.training


def test_standardised_rows_have_mean_0_and_variance_1_and_no_outliers():
    rows = torch.tensor([[1.0, 7.0], [3.0, 7.0]])
    standardise = Standardise(rows)

    assert standardise(rows).tolist() == [[-1, 0], [1, 0]]
    assert standardise(torch.tensor([[102.0, 8.0]])).tolist() == [[5, 1]]


def test_a_lesson_has_as_many_members_of_one_client_as_others():
    given = shadows(((7, 8), [0, 0, 1, -1, -1, -1, 1, -1]), ((9,), [0, 0, 0, -1]))

    taught = lessons(given, True, np.random.default_rng(0))

    assert [lesson.node for lesson in taught] == [7, 8, 9]
    assert [lesson.labels.tolist() for lesson in taught] == [[1, 1, 0, 0]] * 2 + [[1, 0]]
    for i, lesson in zip((0, 1, 0), taught, strict=True):
        owner = lesson.federation.owner[lesson.rows]
        assert ((owner == i) == lesson.labels).all()
        assert len(set(lesson.rows)) == len(lesson.rows)


def test_a_lesson_on_a_whole_federation_takes_the_records_of_all_clients_for_members():
    given = shadows(((7, 8), [0, 0, 1, -1, -1, -1, -1]))

    (lesson,) = lessons(given, False, np.random.default_rng(0))

    assert lesson.node is None
    assert sorted(lesson.rows[:3]) == [0, 1, 2]
    assert (lesson.federation.owner[lesson.rows[3:]] == -1).all()


@pytest.mark.parametrize("given", [(), (((7,), [-1, -1]),), (((7,), [0, 0]),)], ids=str)
def test_without_both_members_and_others_there_is_no_lesson(given):
    with pytest.raises(NotApplicableError, match="with members and non-members"):
        lessons(shadows(*given), True, np.random.default_rng(0))
