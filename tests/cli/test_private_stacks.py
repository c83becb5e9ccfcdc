"""Strategies with server-side noise whose clients clip: they run, from the command line on."""

import pytest

from fedmia import results

CLIPPING = ["attack=yeom_loss", "model=logistic", "client/defenses=[clipping]"]
MASKED = [
    "attack=yeom_loss",
    "model=logistic",
    "client/defenses=[secagg_plus,clipping]",
    "strategy=secagg_plus",
    "strategy.protocol.max_weight=1",
    "strategy.inner.clip_by=clients",
]


@pytest.mark.parametrize(
    "overrides",
    [
        [*CLIPPING, "strategy=dp_ftrl", "strategy.clip_by=clients"],
        [*CLIPPING, "strategy=dp_central", "strategy.clip_by=clients"],
        [*MASKED, "strategy@strategy.inner=dp_ftrl", "strategy.inner.groups=1"],
        [*MASKED, "strategy@strategy.inner=dp_central"],
    ],
    ids=["dp_ftrl", "dp_central", "secagg_plus-dp_ftrl", "secagg_plus-dp_central"],
)
def test_clients_clip_and_the_server_adds_the_noise(run, overrides):
    ended = run(*overrides, "observer.vantage=aggregate")
    assert ended.code == 0, ended.err
    result = results.read(ended.folder / "result.json")
    assert result["faults"] == []
    assert result["privacy"]["epsilon_claimed"] == pytest.approx(8.0, rel=1e-3)
    (claim,) = result["privacy"]["claims"]
    assert "clients clip their own updates: one that does not voids the promise" in claim["reasons"]


def test_poisson_rounds_under_masks_are_refused_before_their_rate_is(run):
    ended = run(
        *MASKED,
        "strategy@strategy.inner=dp_central",
        "strategy.inner.sampling=poisson",
        "strategy.inner.rate=0.1",
    )
    assert ended.code == 2
    assert ended.err.startswith("error: strategy.inner.sampling=poisson: expected fixed or all")
