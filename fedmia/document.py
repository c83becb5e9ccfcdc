"""The parts of ``result.json`` that follow from the configuration and from the attacks."""

import importlib.metadata
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from fedmia import (
    adaptive,
    attackers,
    audit,
    composition,
    config,
    equipment,
    promises,
    proved,
    results,
)
from fedmia import guards as guard
from fedmia.audit.clip_quantile import clip_followed
from fedmia.auxiliary import overlap
from fedmia.canaries.audit_clients import audit_canaries
from fedmia.evaluation import Measured, Targets
from fedmia.masked import SecureAggregation
from fedmia.observe import SPENT
from fedmia.promised import PrivacyClaim
from fedmia.recording import Training
from fedmia.records import Capability
from fedmia.secagg.cohort import Cohort
from fedmia.secagg.protocol import Protocol
from fedmia.seeding import generator
from fedmia.sources import blind_source_accuracy
from fedmia.stage import Stage
from fedmia.vantages import GroupedServer

_PACKAGES = ("fedmia", "flwr", "ray", "torch", "numpy", "hydra-core", "safetensors")
_DELTA = 1e-5
"""Of the ε of canary clients where no claim about clients has one."""


def promised(stage: Stage, training: Training | None, rounds: int = 0) -> dict[str, Any]:
    """Return the fields of ``privacy`` that training settles, whoever looks on.

    Without a ``training`` that came to its end, as if all clients took part in all ``rounds``.
    """
    stopped = training.stopped if training else None
    if training:
        rounds = stopped[0] - 1 if stopped else training.rounds
    everyone = {client: range(1, rounds + 1) for client in range(stage.config.num_clients)}
    claims = promises.spent(
        promises.collect(stage.stack, stage.shard_sizes, stage.config.num_rounds),
        rounds,
        training.participations if training else everyone,
    )
    said = stopped and f"before round {stopped[0]}: {stopped[1]}"
    canaries = _canary_clients(stage, training, claims)
    return {"claims": claims, "stopped": said, **canaries, **_adaptive_clip(training)}


def _adaptive_clip(training: Training | None) -> dict[str, str]:
    """Return what is wrong with an adaptive clip; nothing where the clip is fixed."""
    if training is None or training.clip_aim is None:
        return {}
    return {"adaptive_clip": clip_followed(training.clip_shares, *training.clip_aim) or ""}


def _canary_clients(
    stage: Stage, training: Training | None, claims: Sequence[PrivacyClaim]
) -> dict[str, Any]:
    """Return what canary clients prove, at the δ of what is claimed of a client."""
    if training is None or training.watch is None:
        return {}
    of_clients = [claim for claim in claims if claim["unit"] == "client"]
    claim = promises.covering(of_clients, "aggregate")
    delta = (claim and claim["delta"]) or _DELTA
    rng = generator(stage.seed, "canary clients")
    return {"canary_clients": audit_canaries(training.watch, delta, proved.CONFIDENCE, rng)}


def document(
    stage: Stage, measured: Measured, who: Targets, settled: Mapping[str, Any]
) -> dict[str, Any]:
    """Return those parts, by the names of :class:`fedmia.results.Result`.

    ``settled`` is what :func:`promised` returned of the training.
    """
    plain = config.to_dict(stage.config)
    candidates = stage.candidates
    labels = stage.dataset.y[candidates.index]
    members = int((who.owner >= 0).sum())
    others = members * (len(who.nodes) - 1) if len(who.nodes) > 1 else 0
    nonmembers = int((who.owner == -1).sum())
    confounded = [b["name"] for b in measured.baselines if not _covers_chance(b)]
    if who.host is not None:
        confounded = []  # canaries are members by fair coins, whatever the coins look like
    notes = [*_notes(stage), *measured.notes]
    for row in measured.attacks:
        if left_out := row.get("left_out"):
            notes.append(
                f"{row['name']} leaves out {len(left_out)} of {len(who.nodes)} targets: "
                f"{left_out[0]['reason']}"
            )
    privacy = _privacy(stage, None if confounded else measured, who, settled)
    notes += [line for line in (privacy["stopped"], privacy["alarm"]) if line]
    if confounded and measured.scores:
        # Members and held-out records differ without any training: the scores prove no leak.
        notes.append(f"no ε is given: {', '.join(confounded)} can tell members without training")
    return {
        "schema": results.SCHEMA,
        "key": results.config_key(plain),
        "config": plain,
        "versions": _versions(),
        "seed": stage.seed,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "candidates": {
            "members": members,
            "nonmembers": nonmembers,
            "other_members": others,
            "auxiliary": len(stage.auxiliary),
            "null_run": stage.null_run,
            "source_blind": blind_source_accuracy(labels, who.owner),
            "sha256": candidates.sha256,
            "split_sha256": stage.split.sha256,
        },
        "attacks": measured.attacks,
        "baselines": measured.baselines,
        "privacy": privacy,
        "notes": notes,
    }


def delta_against(stage: Stage, settled: Mapping[str, Any]) -> float:
    """Return the δ of the claim that bounds are held against here, 0 where nothing is claimed."""
    claims, vantage = settled.get("claims", []), stage.vantage.name
    claim = promises.comparable(claims, vantage) or promises.covering(claims, vantage)
    return (claim and claim["delta"]) or 0.0


def _privacy(
    stage: Stage, measured: Measured | None, who: Targets, settled: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what is promised against this vantage, and what the scores prove of one record."""
    found: dict[str, Any] = {
        "stopped": None,
        **settled,
        **promises.against(settled.get("claims", []), stage.vantage.name),
        "epsilon_lower_bound": None,
        "epsilon_ceiling": None,
        "epsilon_independent": None,
        "confidence": proved.CONFIDENCE,
    }
    if measured and measured.scores:
        delta, rng = delta_against(stage, settled), generator(stage.seed, "independent trials")
        bound, ceiling = proved.epsilon(stage, measured.scores, who.owner, delta, who.host)
        found |= {"epsilon_lower_bound": bound, "epsilon_ceiling": ceiling}
        found["epsilon_independent"] = audit.epsilon_from_attacks(
            measured.scores, who.owner, delta, proved.CONFIDENCE, rng
        )
        found["per_round"] = proved.merged(found["per_round"], measured.bounds)
    return found | {"alarm": promises.alarm(found)}


def secure_aggregation(stage: Stage, training: Training) -> SecureAggregation | None:
    """Return how updates were hidden from the server, ``None`` if they were not."""
    strategy = stage.stack.strategy
    protocol = getattr(strategy, "protocol", None)
    codec = protocol.codec if isinstance(protocol, Protocol | Cohort) else None
    graph = protocol if isinstance(protocol, Protocol) else None
    noise = graph.noise if graph else None
    if not (name := str(getattr(strategy, "hides_updates", ""))):
        return None
    return {
        "name": name,
        "neighbours": graph.degree if graph else None,
        "threshold": graph.shares_needed if graph else None,
        "bits": noise.bits if noise else codec.bits if codec else None,
        "modulus_bits": 8 * codec.dtype.itemsize if codec else None,
        "bytes_per_client": training.masked_bytes,
        "clipped": [{"round": number, "share": share} for number, share in training.clipped],
        "abandoned": [number for number, _ in training.abandoned],
    }


def faults(training: Training) -> list[results.Fault]:
    """Return what went wrong and was survived, by round: clients' faults and abandoned rounds.

    Clients that are away since their privacy budgets are spent share one line a round.
    """
    found: list[results.Fault] = [
        {"round": f.round, "client": training.nodes.get(f.node_id), "reason": f.reason}
        for f in training.faults
        if SPENT not in f.reason
    ]
    away = Counter(f.round for f in training.faults if SPENT in f.reason)
    found += [
        {"round": number, "client": None, "reason": f"{_clients(count)} away: {SPENT}"}
        for number, count in away.items()
    ]
    found += [
        {"round": number, "client": None, "reason": f"abandoned: {reason}"}
        for number, reason in training.abandoned
    ]
    found += [
        {"round": number, "client": None, "reason": f"fell back: {reason}"}
        for number, reason in training.fallbacks
    ]
    return sorted(found, key=lambda fault: fault["round"])


def guards(stage: Stage, found: Mapping[str, Any]) -> list[results.Guard]:
    """Return the checks of a document that has all its other parts."""
    index, owner = stage.candidates.index, stage.candidates.owner
    held_out = owner == -1 if not stage.null_run else owner >= -1
    return guard.check(
        found["attacks"],
        found["baselines"],
        candidates_sha256=stage.candidates.sha256,
        shared=overlap(stage.dataset.examples(index[held_out]), stage.members),
        repeated=guard.repeats(stage.dataset.x[index]),
        null_run=stage.null_run,
        test_accuracy=found["utility"]["test_accuracy"],
        defences=list(stage.config.client.get("defenses") or {}),
        adaptive=adaptive.adapted(stage, found["attacks"]),
        selects={name: said for name, a in stage.attacks.items() if (said := a.selects())},
        epsilon_claimed=found["privacy"]["epsilon_comparable"],
        epsilon_lower_bound=found["privacy"]["epsilon_lower_bound"],
        unclaimed=proved.unclaimed(found["privacy"]["claims"], stage.vantage.name),
        confidence=stage.metrics.confidence,
        leak_check=found.get("leak_check"),
        clip_astray=found["privacy"].get("adaptive_clip"),
    )


def _clients(count: int) -> str:
    return "1 client is" if count == 1 else f"{count} clients are"


def _covers_chance(row: dict[str, Any]) -> bool:
    low, high = row["auc_ci"]
    return bool(low <= 0.5 <= high)


def _notes(stage: Stage) -> list[str]:
    notes = []
    if hidden := stage.vantage.hides_updates:
        notes.append(_hidden(stage, hidden))
    notes += composition.notes(stage.stack)
    notes += attackers.notes(stage.attackers, stage.config.num_clients)
    notes += equipment.notes(stage.stack.strategy)
    notes += promises.warnings(stage.stack, stage.shard_sizes, stage.config.num_rounds)
    if noise := stage.config.dataset.get("label_noise"):
        notes.append(f"{noise:.0%} of all labels were re-drawn uniformly, held-out ones included")
    wanted, got = stage.config.candidates.nonmembers, len(stage.split.nonmembers)
    if got < wanted:
        notes.append(f"{got} held-out records instead of {wanted}: the rarest class has no more")
    wanted = sum(len(shard) for shard in stage.split.shards)
    if Capability.SHADOWS in stage.gives and 2 * wanted > len(stage.auxiliary):
        notes.append(
            f"shadow federations without candidates hold {len(stage.auxiliary) // 2} records, this "
            f"one {wanted}: there are {len(stage.auxiliary)} auxiliary records"
        )
    if planted := len(stage.split.canaries):
        notes.append(
            f"attacks are asked about {planted} canary records alone, each put in by a fair coin: "
            "bounds are about adding or removing one of them"
        )
    if stage.null_run:
        notes.append("null run: nobody trained on any candidate, so every AUC should be 0.5")
    return notes


def _hidden(stage: Stage, hidden: str) -> str:
    name = f"vantage '{stage.vantage.name}' under {hidden}"
    if not isinstance(stage.vantage, GroupedServer):
        return f"{name} shows only the sum of a round's updates: all clients are asked about as one"
    sizes = [len(group) for group in stage.groups(range(stage.config.num_clients)).values()]
    return (
        f"{name} shows the sum of each of {len(sizes)} groups of "
        f"{' or '.join(str(size) for size in sorted(set(sizes)))} clients: a group is asked about "
        "as one client, and named by its first"
    )


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        found[name] = importlib.metadata.version(name)
    return found
