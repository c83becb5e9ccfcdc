"""Everything an experiment needs before it starts, built and checked against each other.

What a user can get wrong is found here, before any training.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from flwr.serverapp.strategy import Strategy
from omegaconf import DictConfig

from fedmia import auxiliary, composition
from fedmia.attackers import build_attackers, check_attackers
from fedmia.attacks.base import Attack, NotApplicableError
from fedmia.canaries.base import CanaryRecords
from fedmia.canaries.planting import build_clients, planted, with_empty_shards
from fedmia.config import build
from fedmia.datasets.base import Dataset
from fedmia.equipment import Indices, draw_root
from fedmia.errors import ConfigError, expect
from fedmia.initial import build_model
from fedmia.observer import Observer
from fedmia.records import Capability, Examples, implied
from fedmia.releases.base import check_release
from fedmia.seeding import generator
from fedmia.settings import attack_names
from fedmia.shadows.draws import at_most_half
from fedmia.split import Candidates, draw, draw_candidates
from fedmia.stage import Stage


def prepare(config: DictConfig) -> Stage:
    """Build and check all parts of an experiment.

    Raises
    ------
    ConfigError
        If a part cannot be built or does not fit the others.
    """
    seed = config.seed
    source = build(config, "dataset")
    try:
        dataset = source.load(generator(seed, "dataset"))
    except ConfigError as error:
        raise ConfigError(f"dataset.{error}") from None
    canary_clients = build_clients(config)
    sent = canary_clients.count if canary_clients else 0
    split = draw(
        dataset,
        build(config, "partition"),
        config.num_clients - sent,
        config.candidates.nonmembers,
        generator(seed, "split"),
        config.candidates.reserve,
    )
    split = with_empty_shards(split, dataset, sent) if sent else split
    model = build_model(config, dataset)
    canaries: CanaryRecords | None = build(config, "canaries")
    if canaries:
        known = config.knowledge.known_members
        allowed = "0 with canaries: who is known to be in would bias the coins of the others"
        expect(known == 0, "knowledge.known_members", known, allowed)
        dataset, split = planted(dataset, split, canaries, model, seed)
    null = bool(config.metrics.get("null_run", False))
    candidates = draw_candidates(split, dataset.y, generator(seed, "candidates"), null=null)
    observer: Observer = build(config, "observer")
    observer.stand({k: k for k in range(config.num_clients - sent)})
    # before the mods, which may share its parameters
    strategy: Strategy = build(config, "strategy")
    free = np.setdiff1d(split.auxiliary, candidates.index)
    root = draw_root(strategy, free, dataset.y, np.concatenate(split.shards), seed)
    stage = Stage(
        config=config,
        seed=seed,
        dataset=dataset,
        split=split,
        candidates=candidates,
        model=model,
        trainer=build(config, "train"),
        client=build(config, "client"),
        mods=tuple(_mods(config)),
        pool=build(config, "pool"),
        observer=observer,
        attacks=build_attacks(config),
        metrics=build(config, "metrics"),
        auxiliary=_auxiliary(config, dataset, np.setdiff1d(free, root), candidates),
        root=root,
        canary_clients=canary_clients,
        attackers=build_attackers(config, config.num_clients - sent),
        release=build(config, "release"),
    )
    composition.check(stage.stack)
    check_release(stage.release, observer.vantage, len(stage.unasked))
    check_attackers(stage.attackers, stage.stack)
    check_applicable(stage)
    _check_shadows(stage)
    return stage


def _check_shadows(stage: Stage) -> None:
    """Refuse shadow training that cannot serve an attack of this vantage."""
    has, shown = stage.config.knowledge, stage.vantage.shows | stage.gives
    served = {
        name: attack
        for name, attack in stage.attacks.items()
        if Capability.SHADOWS in attack.requirements() and attack.requirements() <= implied(shown)
    }
    sizes, asked = stage.shown_sizes, len(stage.candidates.index)
    few, enough = len(stage.auxiliary), 2 * len(sizes)
    allowed = f"{enough} auxiliary records for {', '.join(served)}, two a shadow client; got {few}"
    expect(not served or few >= enough, "knowledge.auxiliary", has.auxiliary, allowed)
    shares = [at_most_half(size, asked) / asked for size in (sum(sizes), min(sizes))]
    for name, attack in served.items():
        least = attack.shadows_needed(*shares)
        allowed = f"at least {least} for attack.{name}"
        if least > attack.shadows_needed(0.5, 0.5):
            allowed += " (of all candidates a shadow federation holds {:.1%}, a client {:.1%})"
        expect(
            has.shadow_models >= least,
            "knowledge.shadow_models",
            has.shadow_models,
            allowed.format(*shares),
        )


def _auxiliary(
    config: DictConfig, dataset: Dataset, free: Indices, candidates: Candidates
) -> Examples:
    """Return the adversary's own records, none of them evaluated.

    In a null run some of the records kept for it serve as pseudo-members, and are not given.
    """
    has, rng = config.knowledge, generator(config.seed, "auxiliary")
    if has.domain == "other":
        source = build(config, "knowledge.other")
        try:
            records = auxiliary.reshaped(source.load(rng), dataset)
        except ConfigError as error:
            raise ConfigError(f"knowledge.other.{error}") from None
    else:
        records = dataset.examples(free)
    records = auxiliary.share_of(records, has.auxiliary, rng)
    if has.domain == "shifted":
        records = auxiliary.shifted(records, rng)
    common = auxiliary.overlap(records, dataset.examples(candidates.index))
    allowed = f"records that are not evaluated, {common} of {len(records)} are"
    name = "other" if has.domain == "other" else "domain"
    shown = has.other["_target_"] if has.domain == "other" else has.domain
    expect(common == 0, f"knowledge.{name}", shown, allowed)
    return auxiliary.rescaled(records, dataset) if has.domain == "other" else records


def build_attacks(config: DictConfig) -> dict[str, Attack]:
    """Return the attacks that were asked for, by name."""
    return {name: build(config, f"attack.{name}") for name in attack_names(config)}


def check_applicable(stage: Stage) -> None:
    """Raise ``ConfigError`` if vantage and knowledge serve none of the attacks asked for."""
    attacks, vantage, reasons = stage.attacks, stage.vantage, []
    candidates = stage.dataset.examples(stage.candidates.index)
    for attack in attacks.values():
        try:
            attack.check_applicable(
                vantage.name, vantage.shows | stage.gives, vantage.hides_updates
            )
            attack.check_records(stage.auxiliary, candidates)
            return
        except NotApplicableError as error:
            reasons.append(str(error))
    names = ", ".join(attacks) or "[]"
    reason = reasons[0] if reasons else "expected at least one attack"
    raise ConfigError(f"attack={names}: {reason}")


def check_writable(folder: Path, key: str = "output_dir") -> None:
    """Raise ``ConfigError`` unless files can be made in a folder, which is made if need be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ConfigError(
            f"{key}={folder}: expected a writable folder ({error.strerror})"
        ) from None


def _mods(config: DictConfig) -> list[Any]:
    defenses = config.client.get("defenses") or {}
    return [build(config, f"client.defenses.{name}") for name in defenses]
