"""The shape of every configuration; plug-ins have the shape of their constructors."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING, DictConfig

from fedmia.errors import ConfigError, expect

DOMAINS = ("same", "shifted", "other")

ADAPTIVE = "adaptive"
"""The key in ``attack`` that names no attack."""


@dataclass
class CandidatesConfig:
    """Which records attacks are asked about."""

    nonmembers: int = 900
    reserve: float = 0.3


@dataclass
class KnowledgeConfig:
    """What the adversary has beyond its vantage."""

    auxiliary: float = 1.0
    domain: str = "same"
    other: Any = None
    known_members: float = 0.0
    recipe: bool = True
    shadow_models: int = 16
    shadow_federations: int = 2


@dataclass
class Config:
    """The top level."""

    seed: int = 0
    num_rounds: int = 30
    num_clients: int = 10
    num_threads: int = 1
    secure_noise: bool = False
    output_dir: str = "runs"
    candidates: CandidatesConfig = field(default_factory=CandidatesConfig)
    knowledge: KnowledgeConfig = field(default_factory=KnowledgeConfig)
    dataset: Any = MISSING
    partition: Any = MISSING
    model: Any = MISSING
    train: Any = MISSING
    pool: Any = MISSING
    release: Any = None
    strategy: Any = MISSING
    client: Any = MISSING
    observer: Any = MISSING
    attack: Any = MISSING
    metrics: Any = MISSING
    canaries: Any = None
    defense: str | None = None


def attack_names(config: DictConfig) -> list[str]:
    """Return the names of the attacks that are asked for."""
    return [str(name) for name in config.attack if name != ADAPTIVE]


def informed(name: str) -> str:
    """Return the name of the row of an attack that knows the defence."""
    return f"{name}_{ADAPTIVE}"


def check_ranges(config: DictConfig) -> None:
    """Raise ``ConfigError`` for the first value of the shape above that is out of its range."""
    expect(bool(config.output_dir.strip()), "output_dir", config.output_dir, "a folder")
    expect(config.seed >= 0, "seed", config.seed, "at least 0")
    expect(config.num_rounds >= 1, "num_rounds", config.num_rounds, "at least 1")
    expect(config.num_clients >= 1, "num_clients", config.num_clients, "at least 1")
    expect(config.num_threads >= 1, "num_threads", config.num_threads, "at least 1")
    nonmembers, reserve = config.candidates.nonmembers, config.candidates.reserve
    expect(nonmembers >= 10, "candidates.nonmembers", nonmembers, "at least 10")
    expect(0 <= reserve < 1, "candidates.reserve", reserve, "in [0, 1)")
    has = config.knowledge
    for key in ("auxiliary", "known_members"):
        expect(0 <= has[key] <= 1, f"knowledge.{key}", has[key], "in [0, 1]")
    expect(has.known_members < 1, "knowledge.known_members", has.known_members, "less than 1")
    expect(has.domain in DOMAINS, "knowledge.domain", has.domain, f"one of {', '.join(DOMAINS)}")
    for key in ("shadow_models", "shadow_federations"):
        expect(has[key] >= 1, f"knowledge.{key}", has[key], "at least 1")
    if has.domain == "other" and has.other is None:
        raise ConfigError(
            "knowledge.other=null: expected a data set, e.g. dataset@knowledge.other=wine"
        )
    if has.domain != "other" and has.other is not None:
        raise ConfigError(
            f"knowledge.domain={has.domain}: expected other, since knowledge.other names a data set"
        )
    _check_attacks(config)


def _check_attacks(config: DictConfig) -> None:
    adaptive, names = config.attack.get(ADAPTIVE, False), attack_names(config)
    shown = "null" if adaptive is None else adaptive
    expect(isinstance(adaptive, bool), f"attack.{ADAPTIVE}", shown, "true or false")
    for name in names:
        allowed = f"another name, attack.{ADAPTIVE}=true makes a row of this one of {name}"
        expect(informed(name) not in names, f"attack.{informed(name)}", "…", allowed)
