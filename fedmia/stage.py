"""Everything an experiment needs before it starts, built and checked against each other.

What a user can get wrong is found here, before any training.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flwr.serverapp.strategy import Strategy
from numpy.typing import NDArray
from omegaconf import DictConfig
from torch import nn

from clients.base import Client
from fedmia import auxiliary, composition
from fedmia.attacks.base import Attack, NotApplicableError
from fedmia.config import build
from fedmia.datasets.base import Dataset
from fedmia.errors import ConfigError, expect
from fedmia.federation import Federation
from fedmia.grid.base import Pool
from fedmia.membership import Membership
from fedmia.observe import Observer
from fedmia.records import Capability, Examples
from fedmia.seeding import generator, torch_seed
from fedmia.shadows.draws import at_most_half
from fedmia.site import Trainer
from fedmia.split import Candidates, Split, draw, draw_candidates
from fedmia.vantages import Vantage


@dataclass(frozen=True)
class Stage:
    """The parts of one experiment."""

    config: DictConfig
    seed: int
    dataset: Dataset
    split: Split
    candidates: Candidates
    model: nn.Module
    trainer: Trainer
    client: Client
    mods: tuple[Any, ...]
    pool: Pool
    observer: Observer
    attacks: Mapping[str, Attack]
    metrics: Membership
    auxiliary: Examples

    def strategy(self) -> Strategy:
        """Return a fresh strategy: strategies keep state between rounds."""
        strategy: Strategy = build(self.config, "strategy")
        return strategy

    def stand(self, nodes: Mapping[int, int]) -> Vantage:
        """Return where the adversary stands among these nodes (node id → client number)."""
        return self.observer.stand(nodes, self._hides_updates)

    @cached_property
    def vantage(self) -> Vantage:
        """The same with clients for nodes: all that is known before there are any."""
        return self.stand({k: k for k in range(self.config.num_clients)})

    @cached_property
    def _hides_updates(self) -> str:
        """What the strategy is called if it hides single updates from the server, else nothing."""
        return str(getattr(self.strategy(), "hides_updates", ""))

    @property
    def stack(self) -> composition.Stack:
        """What has to fit together: the strategy, mods, clients' sizes, dropout, model length."""
        names = map(str, self.config.client.get("defenses") or {})
        state = self.model.state_dict()
        return composition.Stack(
            self.strategy(),
            dict(zip(names, self.mods, strict=True)),
            [len(shard) for shard in self.split.shards],
            getattr(self.client, "dropout", 0.0),
            sum(value.numel() for value in state.values() if value.is_floating_point()),
        )

    def federation(self) -> Federation:
        """Return the clients' side."""
        shards = [self.dataset.examples(shard) for shard in self.split.shards]
        device = "cuda" if getattr(self.pool, "num_gpus", 0) else "cpu"
        return Federation(
            self.client, self.mods, self.model, self.trainer, shards, self.seed, device
        )

    @property
    def members(self) -> Examples:
        """All records that somebody trains on."""
        return self.dataset.examples(np.concatenate(self.split.shards))

    @property
    def held_out(self) -> Examples:
        """All records that nobody trains on."""
        index = np.concatenate([self.split.nonmembers, self.split.auxiliary])
        return self.dataset.examples(index)

    @property
    def null_run(self) -> bool:
        """Whether nobody trained on any candidate, so that every attack must be at chance."""
        return bool(self.config.metrics.get("null_run", False))

    @property
    def gives(self) -> frozenset[Capability]:
        """What the adversary has beyond its vantage."""
        has = self.config.knowledge
        there = {
            Capability.AUXILIARY: len(self.auxiliary) > 0,
            Capability.RECIPE: bool(has.recipe),
            Capability.SHADOWS: bool(has.recipe) and len(self.auxiliary) > 0,
            Capability.KNOWN_MEMBERS: has.known_members > 0,
        }
        return frozenset(capability for capability, known in there.items() if known)


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
    split = draw(
        dataset,
        build(config, "partition"),
        config.num_clients,
        config.candidates.nonmembers,
        generator(seed, "split"),
        config.candidates.reserve,
    )
    null = bool(config.metrics.get("null_run", False))
    candidates = draw_candidates(split, dataset.y, generator(seed, "candidates"), null=null)
    observer: Observer = build(config, "observer")
    observer.stand({k: k for k in range(config.num_clients)})
    build(config, "strategy")  # before the mods, which may share its parameters
    stage = Stage(
        config=config,
        seed=seed,
        dataset=dataset,
        split=split,
        candidates=candidates,
        model=build_model(config, dataset),
        trainer=build(config, "train"),
        client=build(config, "client"),
        mods=tuple(_mods(config)),
        pool=build(config, "pool"),
        observer=observer,
        attacks=build_attacks(config),
        metrics=build(config, "metrics"),
        auxiliary=_auxiliary(config, dataset, split, candidates),
    )
    composition.check(stage.stack)
    check_applicable(stage)
    _check_shadows(stage)
    return stage


def _check_shadows(stage: Stage) -> None:
    """Refuse shadow training that cannot serve an attack of this vantage."""
    has, shown = stage.config.knowledge, stage.vantage.shows | stage.gives
    served = {
        name: attack
        for name, attack in stage.attacks.items()
        if Capability.SHADOWS in attack.requirements() and attack.requirements() <= shown
    }
    few, enough = len(stage.auxiliary), 2 * stage.config.num_clients
    allowed = f"{enough} auxiliary records for {', '.join(served)}, two a shadow client; got {few}"
    expect(not served or few >= enough, "knowledge.auxiliary", has.auxiliary, allowed)
    sizes, asked = [len(shard) for shard in stage.split.shards], len(stage.candidates.index)
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
    config: DictConfig, dataset: Dataset, split: Split, candidates: Candidates
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
        records = dataset.examples(np.setdiff1d(split.auxiliary, candidates.index))
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
    return {str(name): build(config, f"attack.{name}") for name in config.attack}


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


def build_model(config: DictConfig, dataset: Dataset) -> nn.Module:
    """Return the initial model, checked against the data.

    A plug-in gives a module, or something that makes one of (input_shape, num_classes).

    Raises
    ------
    ConfigError
        If it cannot take a batch of the records or does not return a logit a class.
    """
    torch.manual_seed(torch_seed(config.seed, "model"))
    made: Any = build(config, "model")
    if not isinstance(made, nn.Module):
        made = made(dataset.input_shape, dataset.num_classes)
    name = config.model._target_.rpartition(".")[2]
    wanted = (2, dataset.num_classes)
    batch: NDArray[np.float32] = dataset.x[:2]
    try:
        with torch.no_grad():
            shape = tuple(made.eval()(torch.tensor(batch)).shape)
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ConfigError(
            f"model={name}: expected to take input of shape {dataset.input_shape} ({reason})"
        ) from error
    if shape != wanted:
        raise ConfigError(
            f"model={name}: expected {dataset.num_classes} logits a record, "
            f"got output of shape {shape} for 2 records"
        )
    if not any(p.requires_grad for p in made.parameters()):
        raise ConfigError(f"model={name}: expected at least one trainable parameter")
    module: nn.Module = made
    return module


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
