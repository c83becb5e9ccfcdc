import pytest
import torch

from fedmia.errors import ConfigError
from fedmia.signals import dct_energy
from fedmia.signals.lenses import (
    Composed,
    Lens,
    LowFrequencies,
    Signs,
    Transmitted,
    Without,
    lowest,
)

LENSES = (
    Transmitted(),
    Signs(),
    LowFrequencies(0.1),
    LowFrequencies(0.5),
    LowFrequencies(1),
    Without(["w"]),
    Without(["v"]),
    Composed((Transmitted(), Signs())),
    Composed((LowFrequencies(0.4), Without(["v"]))),
    Composed((LowFrequencies(0.4), Transmitted(), Signs())),
    Composed((Transmitted(), LowFrequencies(0.4))),
)
every_lens = pytest.mark.parametrize("lens", LENSES, ids=str)


def gradients(outputs=4, inputs=6):
    torch.manual_seed(0)
    delta, a = torch.randn(5, outputs), torch.randn(5, inputs).relu()
    u = torch.randn(3, outputs, inputs)
    u[torch.rand(u.shape) < 0.6] = 0
    return delta, a, u


def cosine(lens, g, u):
    seen, own = lens.gradient("w", g, u), lens.update("w", u)
    return torch.cosine_similarity(seen, own[None]).tolist()


@every_lens
@pytest.mark.parametrize(("outputs", "inputs"), [(4, 6), (6, 4), (1, 5)])
def test_dense_gradients_compare_unwritten_as_one_by_one(lens, outputs, inputs):
    delta, a, u = gradients(outputs, inputs)
    g = (delta[:, :, None] * a[:, None]).flatten(1)
    squares = torch.tensor(
        [[float(lens.gradient("w", row[None], k).square().sum()) for k in u.flatten(1)]
         for row in g]
    )  # fmt: skip
    dots = torch.tensor(
        [[float(lens.gradient("w", row[None], k)[0] @ lens.update("w", k)) for k in u.flatten(1)]
         for row in g]
    )  # fmt: skip
    for found in (
        lens.compare_outer("w", delta, a, u),
        lens.compare("w", g, u.flatten(1)),
        Lens.compare_outer(lens, "w", delta, a, u),
    ):
        torch.testing.assert_close(found[0], squares, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(found[1], dots, rtol=1e-4, atol=1e-5)


@every_lens
def test_the_length_of_a_gradient_does_not_matter(lens):
    delta, a, u = gradients()
    g = (delta[:, :, None] * a[:, None]).flatten(1)
    one = u[0].flatten()
    assert cosine(lens, 7 * g, one) == pytest.approx(cosine(lens, g, one), abs=1e-6)


def test_what_was_not_sent_is_no_part_of_the_gradient():
    # (3, 4) with the second coordinate dropped: cos = 3/5 as it is, 1 on what was sent.
    g, u = torch.tensor([[3.0, 4.0]]), torch.tensor([2.0, 0.0])
    assert torch.cosine_similarity(g, u[None]).item() == pytest.approx(0.6)
    assert cosine(Transmitted(), g, u) == [pytest.approx(1)]


def test_signs_agree_or_do_not():
    g, u = torch.tensor([[5.0, 0.1, -3.0, 0.0]]), torch.tensor([1.0, 1.0, 1.0, 1.0])
    # 1 + 1 − 1 over √3 · √4
    assert cosine(Signs(), g, u) == [pytest.approx(1 / 12**0.5)]


def test_low_frequencies_of_two_coordinates_are_their_mean():
    lens = LowFrequencies(0.5)
    assert lens.update("w", torch.tensor([3.0, 1.0])).tolist() == pytest.approx([2, 2])
    assert cosine(lens, torch.tensor([[9.0, -8.0]]), torch.tensor([1.0, 1.0])) == [pytest.approx(1)]


def test_looking_twice_through_low_frequencies_changes_nothing_more():
    lens, v = LowFrequencies(0.3), torch.randn(40)
    once = lens.update("w", v)
    torch.testing.assert_close(lens.update("w", once), once)
    assert lowest(40, 0.3) == 12
    assert lowest(3, 0.01) == 1


def test_large_arrays_are_written_down_for_low_frequencies(monkeypatch):
    delta, a, u = gradients()
    expected = LowFrequencies(0.3).compare_outer("w", delta, a, u)
    monkeypatch.setattr(dct_energy, "_LARGEST", 1)
    found = LowFrequencies(0.3).compare_outer("w", delta, a, u)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_layers_are_left_out_by_their_name_or_that_of_an_array():
    v = torch.ones(2)
    lens = Without(["3", "5.bias"])
    zeros = {k for k in ("3.weight", "3.bias", "31.bias", "5.weight", "5.bias")
             if not lens.update(k, v).any()}  # fmt: skip
    assert zeros == {"3.weight", "3.bias", "5.bias"}


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda: LowFrequencies(0), r"share=0: expected in \(0, 1\]"),
        (lambda: LowFrequencies(1.5), r"share=1.5: expected in \(0, 1\]"),
        (lambda: Without([]), r"layers=\[\]: expected at least one"),
        (lambda: Composed((Signs(),)), "expected at least two"),
    ],
)
def test_settings_out_of_range_are_refused(make, line):
    with pytest.raises(ConfigError, match=line):
        make()
