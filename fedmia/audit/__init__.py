"""What attack scores prove about ε, and the blind scores that attacks have to beat.

Each bound is a pure function that names its theorem, beside its ceiling: what an attack without an
error would prove with as many trials.
"""

from fedmia.audit.blind import label_prior, label_prior_in_turn, raw_features, untrained
from fedmia.audit.coins import epsilon_one_run_from_coins
from fedmia.audit.gdp import (
    delta_of_epsilon,
    epsilon_of_mu,
    gaussian_epsilon_lower_bound,
    mu_ceiling,
    mu_lower_bound,
    mu_of_epsilon,
)
from fedmia.audit.normal import epsilon_of_gaussians, normality
from fedmia.audit.one_run import (
    epsilon_one_run_from_attacks,
    matched_pairs,
    one_run_ceiling,
    one_run_epsilon,
    one_run_lower_bound,
    one_run_p_value,
)
from fedmia.audit.one_shot import (
    OneShot,
    cosines,
    max_cosines,
    one_shot_all_rounds,
    one_shot_final,
    one_shot_lower_bound,
)
from fedmia.audit.thresholds import epsilon_ceiling, epsilon_from_attacks, epsilon_lower_bound

__all__ = [
    "OneShot",
    "cosines",
    "delta_of_epsilon",
    "epsilon_ceiling",
    "epsilon_from_attacks",
    "epsilon_lower_bound",
    "epsilon_of_gaussians",
    "epsilon_of_mu",
    "epsilon_one_run_from_attacks",
    "epsilon_one_run_from_coins",
    "gaussian_epsilon_lower_bound",
    "label_prior",
    "label_prior_in_turn",
    "matched_pairs",
    "max_cosines",
    "mu_ceiling",
    "mu_lower_bound",
    "mu_of_epsilon",
    "normality",
    "one_run_ceiling",
    "one_run_epsilon",
    "one_run_lower_bound",
    "one_run_p_value",
    "one_shot_all_rounds",
    "one_shot_final",
    "one_shot_lower_bound",
    "raw_features",
    "untrained",
]
