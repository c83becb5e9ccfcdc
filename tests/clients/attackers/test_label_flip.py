"""Poisoned clients train honestly, on labels that are wrong."""

import numpy as np
import pytest
import torch
from asking import ask
from flwr.app import Context, RecordDict

from clients.attackers.label_flip import LabelFlip
from clients.honest import Honest
from fedmia.arrays import to_params
from fedmia.errors import ConfigError
from fedmia.federation import Federation
from fedmia.models.logistic import Logistic
from fedmia.records import Examples
from fedmia.training import FlatModel, LocalSGD


class Recipe:
    """Keeps the labels that it sees, and trains by SGD."""

    def __init__(self):
        self.labels = []

    def fit(self, model, x, y, rng):
        self.labels.append(y.tolist())
        return LocalSGD(local_epochs=1).fit(model, x, y, rng)


def federation(mods, labels=(0, 1, 2, 3), classes=5):
    recipe = Recipe()
    x = torch.rand(4, 3, generator=torch.Generator().manual_seed(0)).numpy()
    shards = [Examples(x, np.array(labels)) for _ in range(4)]
    torch.manual_seed(0)
    model = Logistic()((3,), classes)
    return Federation(Honest(), mods, model, recipe, shards, seed=0), recipe


def send(parts, client, server_round=1):
    context = Context(1, 7, {"partition-id": client}, RecordDict(), {})
    message = ask(server_round, params=FlatModel(parts.model).params())
    return parts()(message, context), context


def flip(**settings):
    return LabelFlip(**{"fraction": 0.25, "num_clients": 4} | settings)


@pytest.mark.parametrize(("to", "wanted"), [("mirrored", [4, 3, 2, 1]), ("next", [1, 2, 3, 4])])
def test_the_recipe_sees_other_labels_for_an_attacker_alone(to, wanted):
    """Of five classes, one of which the client has no record of."""
    parts, recipe = federation((flip(to=to),))
    for client in (2, 3):
        send(parts, client)
    assert recipe.labels == [[0, 1, 2, 3], wanted]


def test_the_last_class_is_followed_by_the_first():
    parts, recipe = federation((flip(to="next"),), labels=(4, 4, 0, 3))
    send(parts, 3)
    assert recipe.labels == [[0, 0, 1, 4]]


def test_the_update_is_that_of_an_honest_client_with_such_labels():
    poisoned, _ = federation((flip(),))
    honest, _ = federation((), labels=(4, 3, 2, 1))
    found, wanted = (send(parts, 3)[0].content for parts in (poisoned, honest))
    assert found["metrics"] == wanted["metrics"]
    for name, value in to_params(found["arrays"]).items():
        assert value.tobytes() == to_params(wanted["arrays"])[name].tobytes()


def test_before_its_first_round_the_labels_are_right():
    parts, recipe = federation((flip(from_round=2),))
    send(parts, 3, server_round=1)
    send(parts, 3, server_round=2)
    assert recipe.labels == [[0, 1, 2, 3], [4, 3, 2, 1]]


def test_a_defence_inside_sees_the_wrong_labels_and_keeps_its_state():
    class Defense:
        def trains(self, trainer, context):
            context.state["trained"] = ask().content["config"]
            return trainer

    parts, recipe = federation((flip(), Defense()))
    _, context = send(parts, 3)
    assert recipe.labels == [[4, 3, 2, 1]]
    assert set(context.state) == {"trained"}
    assert set(context.node_config) == {"partition-id"}


def test_labels_that_there_are_not_are_refused():
    with pytest.raises(ConfigError, match=r"^to=random: expected mirrored or next$"):
        flip(to="random")
