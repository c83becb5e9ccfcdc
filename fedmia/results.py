"""``result.json``: what one run found, field by field, and the store that keeps it.

The classes below are the schema: a field is read as it is annotated, and validated by the same
annotation. ``x | None`` may be null, ``NotRequired`` may be absent, everything else must be there.
Unknown fields are let through, so a field may be added without a new schema number; a field that
is dropped or changes its meaning needs one. Every number is finite.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, TypedDict, cast

from fedmia.communication import Communication
from fedmia.masked import LeakCheck, SecureAggregation
from fedmia.promised import CanaryClients, PrivacyClaim, RoundEpsilon
from fedmia.schema import Count, Interval, MismatchError, Rule, Seconds, Share, Signed, check
from fedmia.suspected import Suspicion

SCHEMA = 1
FILE_NAME = "result.json"
SCORES_NAME = "scores.npz"
NOT_SCIENCE = ("output_dir", "pool", "num_threads", "defense")
"""Keys of the configuration that change no result."""


class ResultError(ValueError):
    """A result document cannot be used; one line naming the file, the field and what is allowed."""


ByFpr = dict[str, Share | None]
"""Keyed by the false-positive rate as written, ``"0.01"``; null where 1/N cannot resolve it."""


class RoundAccuracy(TypedDict):
    """Test accuracy of the global model after one round; null where it could not be computed."""

    round: Count
    test_accuracy: Share | None


class Utility(TypedDict):
    """What the federation's model is worth; null where training did not get that far."""

    test_accuracy: Share | None
    train_accuracy: Share | None
    per_round: list[RoundAccuracy]


class Candidates(TypedDict):
    """Sizes of the populations that every attack scored, and the hashes that identify them."""

    members: Count  # records some target client trained on
    nonmembers: Count  # distinct held-out records, trained on by nobody
    other_members: Count  # members that serve as "member of another client" for a target
    auxiliary: Count  # records given to the adversary, never evaluated
    source_blind: NotRequired[Share | None]  # source accuracy of the class histograms alone
    null_run: bool  # the "members" were held out too: every attack must be at chance
    sha256: str  # of the candidates and who holds them
    split_sha256: str  # of the partition of the data set


class Population(TypedDict):
    """How well scores separate two populations; null where one of them is empty."""

    auc: Share | None
    auc_ci: Interval | None
    tpr_at_fpr: NotRequired[ByFpr]


class TargetPopulation(Population):
    """The separation of one target client's members from the held-out non-members."""

    client: Count


class RoundAuc(TypedDict):
    """AUC of an attack that reads the transcript up to one round."""

    round: Count
    auc: Share | None


class Roc(TypedDict):
    """Points of the pooled ROC curve, ascending, thinned on a logarithmic scale."""

    fpr: list[Share]
    tpr: list[Share]


class Histogram(TypedDict):
    """Scores per bin (counts or densities); ``edges`` is one longer than each population."""

    edges: list[float]
    members: list[float]
    nonmembers: list[float]
    other_members: list[float] | None


class LeftOut(TypedDict):
    """A target that an attack could not be asked about."""

    client: Count
    reason: str


class Measured(TypedDict):
    """An attack or a baseline that ran; members against held-out records unless said otherwise."""

    name: str
    vantage: str  # where its adversary stands; "blind" for a baseline
    status: Literal["ok"]
    auc: Share  # pooled over all (target, candidate) pairs, ties at mid-rank
    auc_ci: Interval
    tpr_at_fpr: ByFpr
    tpr_ci: dict[str, Interval | None]
    balanced_accuracy: Share | None  # threshold fitted on one half, applied to the other
    advantage: Signed | None  # TPR - FPR at that threshold
    auc_label_matched: Share | None  # comparing records of one label only
    # At thresholds set on one half of the held-out records and judged on the other.
    achieved_fpr: NotRequired[ByFpr]
    achieved_tpr: NotRequired[ByFpr]
    ppv: NotRequired[dict[str, Share | None]]  # by prior, at the nominal rate of 1%
    min_fpr: NotRequired[Share]  # one over the distinct held-out records
    # Members that score highest under the client that holds them; null with one target.
    source_accuracy: NotRequired[Share | None]
    source_accuracy_ci: NotRequired[Interval | None]
    source_chance: NotRequired[Share | None]
    other_members: Population | None  # the target's members against those of other clients
    per_target: list[TargetPopulation]
    auc_target_mean: Share | None
    auc_per_round: list[RoundAuc] | None
    roc: Annotated[
        Roc, Rule("fpr and tpr of one length", lambda v: len(v["fpr"]) == len(v["tpr"]) > 0)
    ]
    histogram: Annotated[
        Histogram,
        Rule(
            "one more edge than bins",
            lambda v: all(
                bins is None or len(v["edges"]) == len(bins) + 1
                for bins in (v["members"], v["nonmembers"], v["other_members"])
            ),
        ),
    ]
    seconds: Seconds
    left_out: NotRequired[list[LeftOut]]  # targets that the attack does not apply to
    adaptive: NotRequired[bool]  # the attacker knows the defences; absent if not


class Unmeasured(TypedDict):
    """An attack or a baseline without numbers, and why."""

    name: str
    vantage: str
    status: Literal["not_applicable", "failed"]
    reason: str
    adaptive: NotRequired[bool]


Outcome = Measured | Unmeasured


class Privacy(TypedDict):
    """Claimed and empirical ε; ``epsilon_ceiling`` is what a perfect attack could have proved.

    The bound is about replacing one record by another of its label (one run; Steinke et al.,
    NeurIPS 2023, on matched pairs or, where canary records were planted, on their coins), at
    ``delta``, or 0 where nothing is claimed. ``epsilon_independent`` is that of Clopper and
    Pearson, which takes the records for independent trials.
    """

    epsilon_claimed: float | None  # of the claim that holds against this vantage; null without one
    delta: float | None
    epsilon_lower_bound: float | None
    epsilon_ceiling: float | None
    epsilon_independent: NotRequired[float | None]
    confidence: Share | None  # of the lower bound
    epsilon_comparable: NotRequired[float | None]  # that claim about replacing one record
    claims: NotRequired[list[PrivacyClaim]]
    per_round: NotRequired[list[RoundEpsilon]]
    canary_clients: NotRequired[CanaryClients | None]
    alarm: NotRequired[str | None]  # which bound exceeds which claim
    stopped: NotRequired[str | None]  # why training ended before its last round
    adaptive_clip: NotRequired[str]  # what is wrong with an adaptive clip; empty if nothing


Verdict = Literal["pass", "warn", "fail", "info"]


class Guard(TypedDict):
    """One check of the procedure: what would make the figures mean something else."""

    name: str
    status: Verdict
    detail: str  # one line


class Fault(TypedDict):
    """Something that went wrong and was survived; ``client`` is null where it was not a client."""

    round: Count
    client: Count | None
    reason: str


class Timing(TypedDict):
    """Wall-clock seconds; null for a stage that was not reached."""

    setup_s: Seconds | None
    train_s: Seconds | None
    signals_s: Seconds | None
    shadows_s: NotRequired[Seconds | None]  # training of shadow models
    attacks_s: Seconds | None
    per_round_s: Seconds | None  # median of one training round


class Result(TypedDict):
    """One run."""

    schema: Literal[1]
    key: str  # config_key(config): equal keys are the same experiment
    config: dict[str, Any]  # resolved
    versions: dict[str, str]
    seed: int
    created: str  # UTC, ISO 8601
    status: Literal["ok", "failed"]
    reason: str | None  # why it failed
    utility: Utility
    candidates: Candidates
    attacks: list[Outcome]
    baselines: list[Outcome]  # label_prior, raw_features, untrained_model
    privacy: Privacy
    guards: NotRequired[list[Guard]]
    faults: list[Fault]
    suspicion: NotRequired[Suspicion]  # of a run with attackers, or whose strategy judges clients
    communication: NotRequired[Communication]  # of a run in which some client answered
    secagg: NotRequired[SecureAggregation]  # of a run whose updates were hidden
    leak_check: NotRequired[LeakCheck]  # where the transcript has masked words
    notes: list[str]  # declared facts a reader must know, e.g. re-drawn labels
    timing: Timing


def config_key(config: Mapping[str, object]) -> str:
    """Return the 16 hex digits that identify an experiment.

    They are the start of the SHA-256 of the configuration as canonical JSON, without
    ``output_dir``, ``pool``, ``num_threads`` and ``defense``: where a run is written, what it runs
    on and what a page calls it change no result.
    """
    science = {k: v for k, v in config.items() if k not in NOT_SCIENCE}
    text = json.dumps(science, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def validate(document: object, source: str = FILE_NAME) -> Result:
    """Return ``document`` as a ``Result``.

    Raises ``ResultError`` naming ``source`` and the first field that breaks the schema.
    """
    try:
        check(document, Result)
    except MismatchError as mismatch:
        raise ResultError(f"{source}: {mismatch}") from None
    return cast(Result, document)


def write(path: Path, result: Mapping[str, object]) -> None:
    """Validate ``result`` and write it to ``path``: wholly, or not at all.

    Raises ``ResultError`` where it does not follow the schema, NaN and infinity included.
    """
    text = json.dumps(validate(result, str(path)), indent=1, allow_nan=False)
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def read(path: Path) -> Result:
    """Return the validated result of one file; raise ``ResultError`` where it is not one."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except OSError as error:
        raise ResultError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise ResultError(f"{path}: not a complete JSON document: {error}") from None
    return validate(document, str(path))


def find(dirs: Iterable[Path]) -> list[tuple[Path, Result]]:
    """Return ``(run directory, result)`` of every run at or below ``dirs``, each once, by path.

    Raises ``ResultError`` for a directory that does not exist and for a result that is broken.
    """
    runs: dict[Path, Path] = {}
    for top in dirs:
        if not top.is_dir():
            raise ResultError(f"{top}: expected a directory that holds runs")
        for path in top.rglob(FILE_NAME):
            runs.setdefault(path.parent.resolve(), path.parent)
    return [(runs[key], read(runs[key] / FILE_NAME)) for key in sorted(runs)]


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a JSON number")
