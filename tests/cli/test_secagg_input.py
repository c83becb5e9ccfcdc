"""Settings of secure aggregation that cannot work: exit code 2 and one line before training."""

import pytest

REFUSED = [
    ("strategy.protocol.threshold=9", "protocol.threshold=9: expected in 2..3, the number of neig"),
    ("strategy.protocol.neighbors=4", "protocol.neighbors=4: expected in 2..3, less than cohort=4"),
    (
        "strategy.protocol.modulus_bits=32 strategy.protocol.bits=30",
        "protocol.modulus_bits=32: expected at least 42, for 4 clients × weight 1000 × 30 bits",
    ),
    (
        "strategy.protocol.noise.mechanism=skellam",
        "protocol.max_weight=1000: expected 1 with noise, whose sensitivity is one client's clip",
    ),
    (
        "strategy.protocol.noise.mechanism=skellam strategy.protocol.max_weight=1 "
        "strategy.protocol.noise.bits=9",
        "strategy.protocol.noise.bits=9: expected in [10, 63] for cohort=4, length=",
    ),
    (
        "strategy.protocol.corrupt=0.4 strategy.protocol.malicious_server=true",
        "strategy.protocol.corrupt=0.4: expected less, or a dropout of less than 0.1",
    ),
    ("strategy@strategy.inner=krum", "strategy.inner=Krum: expected a rule that is linear in the"),
]


@pytest.mark.parametrize(("overrides", "said"), REFUSED, ids=[o for o, _ in REFUSED])
def test_what_cannot_be_is_said_in_one_line_before_training(run, tmp_path, overrides, said):
    ended = run("strategy=secagg_plus", f"output_dir={tmp_path}", *overrides.split())
    assert ended.code == 2
    assert ended.err.startswith("error: ")
    assert said in ended.err
    assert ended.err.count("\n") == 1
    assert not list(tmp_path.rglob("transcript"))
