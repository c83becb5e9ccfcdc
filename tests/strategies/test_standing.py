"""How reputations move and whom they isolate, by hand; and the file that keeps them."""

from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import save_file

from fedmia.errors import ConfigError
from strategies import standing_file
from strategies.standing import Standing, Terms, remember

TERMS = Terms(decay=0.8, initial=0.5, grace=2, threshold=0.5, floor=0.01, penalty=0.5, redemption=3)


def test_a_reputation_is_an_exponential_average():
    standing = TERMS.newcomer()
    TERMS.judge(standing, 1.0)
    TERMS.judge(standing, 0.0)
    assert standing.reputation == pytest.approx(0.8 * (0.8 * 0.5 + 0.2))
    assert standing.judged == 2
    TERMS.judge(standing, 1.0, earns=False)
    assert standing.reputation == pytest.approx(0.8 * (0.8 * 0.5 + 0.2))
    TERMS.judge(standing, 0.0, earns=False)
    assert standing.reputation == pytest.approx(0.8**2 * (0.8 * 0.5 + 0.2))


def test_the_limit_is_a_share_of_the_mean_of_those_who_were_judged_and_are_not_isolated():
    known = [Standing(0.9, 5), Standing(0.3, 5), Standing(0.0, 5, isolated=True), Standing(0.5)]
    assert TERMS.limit(known) == pytest.approx(0.3)
    assert TERMS.limit([]) == 0.01
    assert TERMS.limit([Standing(0.001, 9)]) == 0.01


def test_nobody_is_isolated_within_its_grace():
    standing = Standing(0.1, judged=2)
    assert not TERMS.isolates(standing, 0.2)
    standing.judged = 3
    assert TERMS.isolates(standing, 0.2)
    assert (standing.isolated, standing.wait, standing.asked) == (True, 3, False)


def test_an_isolated_client_is_asked_after_its_wait_and_back_above_the_limit():
    standing = Standing(0.1, 9, isolated=True, wait=0)
    assert standing.asked
    assert not TERMS.isolates(standing, 0.2)
    assert standing.isolated
    standing.reputation = 0.2
    assert not TERMS.isolates(standing, 0.2)
    assert not standing.isolated


def test_a_punished_client_loses_and_its_probation_starts_anew():
    standing = Standing(0.6, 9, isolated=True, wait=0)
    TERMS.punish(standing)
    assert (standing.reputation, standing.wait) == (0.3, 3)
    free = Standing(0.6, 9)
    TERMS.punish(free)
    assert (free.reputation, free.wait) == (0.3, 0)


def test_without_redemption_isolation_is_for_good():
    standing = Standing(0.1, 9)
    replace(TERMS, redemption=None).isolates(standing, 0.2)
    assert standing.wait is None
    assert not standing.asked


def test_a_history_is_a_decayed_sum_of_its_own():
    standing, update = Standing(0.5), np.array([1.0, 2.0], np.float32)
    remember(standing, update, 0.5)
    update[:] = 4.0
    remember(standing, update, 0.5)
    np.testing.assert_allclose(standing.history, [4.5, 5.0])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"decay": 1.0}, r"decay=1.0: expected in \[0, 1\)"),
        ({"threshold": -0.1}, r"threshold=-0.1: expected in \[0, 1\)"),
        ({"floor": 1.0}, r"floor=1.0: expected in \[0, 1\)"),
        ({"initial": 1.5}, r"initial=1.5: expected in \[0, 1\]"),
        ({"penalty": -1.0}, r"penalty=-1.0: expected in \[0, 1\]"),
        ({"grace": -1}, "grace=-1: expected at least 0"),
        ({"redemption": 0}, "redemption=0: expected null, or at least 1"),
    ],
)
def test_terms_out_of_range_are_refused(change, said):
    with pytest.raises(ConfigError, match=f"^{said}$"):
        replace(TERMS, **change)


STANDINGS = {
    2**63 + 5: Standing(0.125, 7, True, 2, np.array([1.5, -2.0], np.float32)),
    3: Standing(0.5),
    9: Standing(0.3, 4, True, None, np.array([0.0, 1.0], np.float32)),
}


def test_standings_are_read_as_they_were_written(tmp_path):
    path = tmp_path / "deep" / "state.safetensors"
    standing_file.write(path, {1: Standing(0.9)})
    standing_file.write(path, STANDINGS)
    found = standing_file.read(path)
    assert list(found) == list(STANDINGS)
    for node, standing in STANDINGS.items():
        np.testing.assert_equal(vars(found[node]), vars(standing))
    assert [p.name for p in path.parent.iterdir()] == ["state.safetensors"]


def cut(path):
    path.write_bytes(path.read_bytes()[:-3])


def foreign(path):
    save_file({"weight": np.ones(3, np.float32)}, path)


def text(path):
    path.write_text("reputations: 1")


def out_of_range(path):
    standing_file.write(path, {1: Standing(0.5, -1)})


def not_finite(path):
    standing_file.write(path, {1: Standing(0.5, 1, history=np.array([np.nan], np.float32))})


def bare(path):
    save_file({}, path, metadata={"kind": "fedmia standings 1"})


@pytest.mark.parametrize("damage", [cut, foreign, text, out_of_range, not_finite, bare])
def test_a_damaged_or_foreign_file_is_one_line(damage, tmp_path):
    path = tmp_path / "state"
    standing_file.write(path, STANDINGS)
    damage(path)
    with pytest.raises(ConfigError, match=r"^state_file=\S+: expected reputations .*") as refused:
        standing_file.read(path)
    assert "\n" not in str(refused.value)


def test_a_folder_in_the_place_of_the_file_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match=r"^state_file=\S+: expected a writable file \("):
        standing_file.write(tmp_path, STANDINGS)
    assert not list(tmp_path.iterdir())
