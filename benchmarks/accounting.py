"""What accounting costs: seconds to find the noise for a budget, milliseconds to follow ε.

Processor time, which a busy machine disturbs less than the clock's. A calibration starts from
empty caches; the import of dp-accounting is told by itself. All rounds are followed, one by one.

    python benchmarks/accounting.py [--rates 0.01 0.1 0.5 1] [--budgets 0.5 8] [--rounds 30 1000]
"""

import argparse
import time
from collections.abc import Callable

from fedmia.privacy import accounting, pld, rdp
from fedmia.privacy.accounting import (
    Account,
    Neighbours,
    Sampling,
    calibrate,
    gaussian_release,
)
from fedmia.privacy.randomness import gaussian_source

POPULATION = 100
DELTA = 1e-5
CACHES = (
    accounting._by_pld,
    pld._composed,
    pld._one,
    rdp.divergences,
)


def main() -> None:
    """Print a line for each sampler, rate, budget and number of rounds."""
    options = parse()
    print(f"import of dp-accounting: {seconds(import_library):.2f} s")
    print("sampler                rate  epsilon  rounds        z  calibrate s  a round ms")
    for rate in options.rates:
        for name, sampling, neighbours in samplers(rate):
            for budget in options.budgets:
                for rounds in options.rounds:
                    measured = measure(sampling, neighbours, budget, rounds)
                    print(f"{name:21} {rate:5} {budget:8} {rounds:7} {measured}", flush=True)
    for secure in (False, True):
        source = gaussian_source(secure, 0, "benchmark")
        source(1000)
        took = min(seconds(lambda source=source: source(10**6)) for _ in range(5))
        print(f"{'secure' if secure else 'seeded'} noise: {1 / took:.1f} M floats a second")


def samplers(rate: float) -> list[tuple[str, Sampling, Neighbours]]:
    """Return (name, sampling, neighbours) of what samples so many."""
    if rate == 1:
        return [("all", Sampling(), Neighbours.ADD_REMOVE)]
    poisson = Sampling("poisson", rate=rate)
    fixed = Sampling("fixed", sample=round(POPULATION * rate), population=POPULATION)
    return [
        ("poisson", poisson, Neighbours.ADD_REMOVE),
        ("poisson, replace one", poisson, Neighbours.REPLACE_ONE),
        ("fixed, replace one", fixed, Neighbours.REPLACE_ONE),
    ]


def measure(sampling: Sampling, neighbours: Neighbours, budget: float, rounds: int) -> str:
    """Return the noise multiplier, the time to find it, and that of a round's ε."""
    for cached in CACHES:
        cached.cache_clear()

    def account_of(z: float) -> Account:
        return Account(gaussian_release(z, sampling), neighbours, DELTA)

    found: list[float] = []
    took = seconds(lambda: found.append(calibrate(budget, DELTA, rounds, account_of)))
    for cached in CACHES:
        cached.cache_clear()
    account = account_of(found[0])
    followed = seconds(lambda: account.curve(range(1, rounds + 1)))
    return f"{found[0]:8.4f} {took:12.2f} {1000 * followed / rounds:11.2f}"


def import_library() -> None:
    """Import what is imported at the first Poisson account."""
    from dp_accounting.pld import privacy_loss_distribution  # noqa: F401


def seconds(work: Callable[[], object]) -> float:
    """Return how long it takes, in time of the processor."""
    start = time.process_time()
    work()
    return time.process_time() - start


def parse() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rates", type=float, nargs="+", default=[0.01, 0.1, 0.5, 1])
    parser.add_argument("--budgets", type=float, nargs="+", default=[0.5, 8])
    parser.add_argument("--rounds", type=int, nargs="+", default=[30, 1000])
    return parser.parse_args()


if __name__ == "__main__":
    main()
