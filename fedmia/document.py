"""The parts of ``result.json`` that follow from the configuration and from the attacks."""

import importlib.metadata
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from fedmia import audit, composition, config, results
from fedmia import guards as guard
from fedmia.auxiliary import overlap
from fedmia.evaluation import Measured, Targets
from fedmia.masked import SecureAggregation
from fedmia.recording import Training
from fedmia.records import Capability
from fedmia.secagg.cohort import Cohort
from fedmia.secagg.protocol import Protocol
from fedmia.seeding import generator
from fedmia.sources import blind_source_accuracy
from fedmia.stage import Stage

_PACKAGES = ("fedmia", "flwr", "ray", "torch", "numpy", "hydra-core", "safetensors")
_CONFIDENCE = 0.95


def document(stage: Stage, measured: Measured, who: Targets) -> dict[str, Any]:
    """Return those parts, by the names of :class:`fedmia.results.Result`."""
    plain = config.to_dict(stage.config)
    candidates = stage.candidates
    labels = stage.dataset.y[candidates.index]
    members = int((who.owner >= 0).sum())
    others = members * (len(who.nodes) - 1) if len(who.nodes) > 1 else 0
    nonmembers = int((who.owner == -1).sum())
    confounded = [b["name"] for b in measured.baselines if not _covers_chance(b)]
    notes = _notes(stage)
    for row in measured.attacks:
        if left_out := row.get("left_out"):
            notes.append(
                f"{row['name']} leaves out {len(left_out)} of {len(who.nodes)} targets: "
                f"{left_out[0]['reason']}"
            )
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
        "privacy": _privacy(stage, {} if confounded else measured.scores, who),
        "notes": notes,
    }


def _privacy(stage: Stage, scores: Mapping[str, Any], who: Targets) -> dict[str, Any]:
    """Return what the scores prove about replacing one record, and about independent trials."""
    found: dict[str, Any] = {
        "epsilon_claimed": None,
        "delta": None,
        "epsilon_lower_bound": None,
        "epsilon_ceiling": None,
        "epsilon_independent": None,
        "confidence": _CONFIDENCE,
    }
    if scores:
        index, rng = stage.candidates.index, generator(stage.seed, "audit")
        kind = stage.dataset.y[index]
        if stage.dataset.owner is not None:
            kind = kind + stage.dataset.num_classes * stage.dataset.owner[index]
        bound, ceiling = audit.epsilon_one_run_from_attacks(
            scores, who.owner, kind, 0.0, _CONFIDENCE, rng
        )
        found |= {"epsilon_lower_bound": bound, "epsilon_ceiling": ceiling}
        found["epsilon_independent"] = audit.epsilon_from_attacks(
            scores, who.owner, 0.0, _CONFIDENCE, rng
        )
    return found


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
    """Return what went wrong and was survived, by round: clients' faults and abandoned rounds."""
    found: list[results.Fault] = [
        {"round": f.round, "client": training.nodes.get(f.node_id), "reason": f.reason}
        for f in training.faults
    ]
    found += [
        {"round": number, "client": None, "reason": f"abandoned: {reason}"}
        for number, reason in training.abandoned
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
        selects={name: said for name, a in stage.attacks.items() if (said := a.selects())},
        epsilon_claimed=found["privacy"]["epsilon_claimed"],
        epsilon_lower_bound=found["privacy"]["epsilon_lower_bound"],
        confidence=stage.metrics.confidence,
        leak_check=found.get("leak_check"),
    )


def _covers_chance(row: dict[str, Any]) -> bool:
    low, high = row["auc_ci"]
    return bool(low <= 0.5 <= high)


def _notes(stage: Stage) -> list[str]:
    notes = []
    if hidden := stage.vantage.hides_updates:
        notes.append(
            f"vantage '{stage.vantage.name}' under {hidden} shows only the sum of a round's "
            "updates: all clients are asked about as one"
        )
    notes += composition.notes(stage.stack)
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
    if stage.null_run:
        notes.append("null run: nobody trained on any candidate, so every AUC should be 0.5")
    return notes


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        found[name] = importlib.metadata.version(name)
    return found
