"""What parties to a sum agree on."""

import numpy as np
import pytest

from fedmia.errors import ConfigError
from fedmia.secagg.cohort import Cohort
from fedmia.secagg.errors import ProtocolError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"cohort": 2}, "cohort=2: expected at least 3"),
        ({"cohort": 4, "min_clients": 1}, r"min_clients=1: expected in 2\.\.4"),
        ({"cohort": 4, "min_clients": 5}, r"min_clients=5: expected in 2\.\.4"),
        ({"cohort": 4, "clip": 0.0}, "clip=0.0: expected more than 0"),
        ({"cohort": 4, "bits": 24, "modulus_bits": 32}, "modulus_bits=32: expected at least 36"),
    ],
)
def test_what_cannot_be_is_refused(settings, message):
    with pytest.raises(ConfigError, match=f"^{message}"):
        Cohort(**settings)


def test_the_length_is_that_of_what_is_encoded_counters_left_out():
    cohort = Cohort(4)
    model = {"w": np.zeros((2, 3), np.float32), "steps": np.zeros(5, np.int64)}

    words = cohort.codec.encode(model, {"loss": 1.0}, 1)

    assert cohort.length(model, ["loss"]) == len(words) == 6 + 1 + 2


def test_too_few_are_too_few():
    cohort = Cohort(4, min_clients=3)
    cohort.expect_enough(3)
    with pytest.raises(ProtocolError, match="2 clients are left: expected min_clients=3"):
        cohort.expect_enough(2)
