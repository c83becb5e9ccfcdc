"""One experiment, told in a page: build, train under observation, attack, measure, write."""

import shutil
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from flwr.serverapp import Grid
from omegaconf import DictConfig

from fedmia import communication, config, leaks, masked, results
from fedmia.document import (
    delta_against,
    document,
    faults,
    guards,
    promised,
    secure_aggregation,
)
from fedmia.errors import ConfigError
from fedmia.evaluation import Measured, OnAttack, Targets, evaluate, targets
from fedmia.knowledge import View
from fedmia.preparation import check_applicable, check_writable, prepare
from fedmia.recording import OnRound, Training, train
from fedmia.released import view_of
from fedmia.report.html import render
from fedmia.runlog import logging_to
from fedmia.stage import Stage
from fedmia.suspects import suspicion
from fedmia.training import FlatModel, accuracy, torch_threads
from fedmia.transcript import Transcript, TranscriptError
from fedmia.truth import Truth
from fedmia.vantages import named

_ATTACK_KEYS = ("attack", "knowledge", "metrics", "observer", "release")


def check(settings: DictConfig) -> Stage:
    """Build everything and check what only the machine can tell; nothing is trained.

    Raises
    ------
    ConfigError
        In one line, what is wrong.
    """
    check_writable(Path(settings.output_dir))
    return prepare(settings)


def run(
    settings: DictConfig,
    run_dir: Path,
    on_round: OnRound = lambda server_round, test_accuracy: None,
    grid: Grid | None = None,
    stage: Stage | None = None,
    on_attack: OnAttack = lambda done, total, name: None,
) -> results.Result:
    """Run one experiment and write its run directory.

    Parameters
    ----------
    settings
        A checked configuration.
    run_dir
        Where ``result.json``, ``report.html``, ``run.log`` and ``transcript/`` go.
    on_round
        Called after each round of training.
    grid
        A running federation, e.g. Flower's; ``None`` starts the configured pool.
    stage
        The configuration's parts, if they were already built.
    on_attack
        Called before each attack.
    """
    check_writable(run_dir, "the run directory")
    if (run_dir / "transcript").exists():
        raise ConfigError(f"{run_dir}: expected a new run directory, it holds a transcript")
    with logging_to(run_dir / "run.log"), torch_threads(settings.num_threads):
        start = time.perf_counter()
        stage = stage or prepare(settings)
        begun: list[float] = []

        def main(running: Grid) -> Training:
            begun.append(time.perf_counter())
            return train(stage, running, run_dir, on_round)

        if grid is not None:
            training = main(grid)
        else:
            training = stage.pool.run(stage.federation(), settings.num_clients, settings.seed, main)
        trained = time.perf_counter()
        truth = Truth(training.nodes, stage.split)
        transcript = Transcript(run_dir / "transcript")
        failure = training.failure
        settled = promised(stage, training)
        delta = delta_against(stage, settled)
        view, who, measured = attack_transcript(stage, transcript, truth, failure, on_attack, delta)
        result = document(stage, measured, who, settled)
        result |= {
            "status": "failed" if failure or _failed(measured) else "ok",
            "reason": failure or _failed(measured),
            "utility": _utility(stage, training),
            "faults": faults(training),
            "timing": {
                "setup_s": begun[0] - start,
                "train_s": trained - begun[0],
                **_seconds(view, measured),
                "per_round_s": float(np.median(training.round_seconds or [0.0])),
            },
        }
        dense = sum(value.nbytes for value in training.params.values())
        if sent := communication.counted(training.answer_bytes, dense):
            result["communication"] = sent
        if found := suspicion(stage, training):
            result["suspicion"] = found
        if hidden := secure_aggregation(stage, training):
            result |= {"secagg": hidden, "notes": [*result["notes"], *masked.notes(hidden)]}
        result |= _leaks(transcript, stage)
        if not stage.observer.keep_transcript:
            shutil.rmtree(run_dir / "transcript")
        return _write(run_dir, result, measured, who, stage)


def attack(
    run_dir: Path,
    overrides: Sequence[str],
    config_dirs: Sequence[Path] = (),
    on_attack: OnAttack = lambda done, total, name: None,
) -> tuple[Path, results.Result]:
    """Attack the transcript of a finished (or still running) run again, without training.

    Returns the folder below ``run_dir`` that the new result was written to, and the result.

    Raises
    ------
    ConfigError
        If the run directory lacks something, or an override is about more than the attack.
    """
    settings = config.load(run_dir / ".hydra" / "config.yaml")
    for key in config.keys(overrides):
        group = key.partition("@")[2] or key
        group = group.split(".")[0].split("/")[0]
        if group not in _ATTACK_KEYS:
            allowed = ", ".join(_ATTACK_KEYS)
            raise ConfigError(f"{key}: expected one of {allowed}; the rest was fixed in training")
    settings = config.amend(settings, overrides, config_dirs)
    try:
        transcript = Transcript(run_dir / "transcript")
        truth = Truth.load(run_dir)
    except TranscriptError as error:
        raise ConfigError(str(error)) from None
    if strangers := set(transcript.node_ids) - set(truth.nodes):
        raise ConfigError(f"{run_dir}: expected nodes.json to know node {min(strangers)}")
    stage = prepare(settings)
    if stage.split.sha256 != truth.split.sha256:
        raise ConfigError(
            f"{run_dir}: expected the data that this run was trained on, it has changed since"
        )
    truth.split.verify(stage.dataset)
    transcript = _narrow(transcript, stage, truth)
    if not len(transcript) and transcript.final is None:
        raise ConfigError(f"{transcript.path}: expected at least one complete round, found none")
    check_applicable(stage)
    folder = run_dir / f"attack_{datetime.now(UTC):%Y-%m-%d_%H-%M-%S-%f}"
    folder.mkdir()
    with logging_to(folder / "run.log"), torch_threads(settings.num_threads):
        before = results.read(run_dir / results.FILE_NAME) if _has_result(run_dir) else None
        so_far = max(transcript.rounds, default=0)
        settled = dict(before["privacy"]) if before else promised(stage, None, so_far)
        delta = delta_against(stage, settled)
        view, who, measured = attack_transcript(stage, transcript, truth, None, on_attack, delta)
        result = document(stage, measured, who, settled)
        result["notes"] += [f"damaged and left out: {name}" for name in transcript.damaged]
        missing = settings.num_rounds - len(transcript)
        if missing > 0 and stage.vantage.every_round:
            result["notes"].append(
                f"{len(transcript)} of {settings.num_rounds} rounds are complete"
            )
        empty: dict[str, Any] = {"test_accuracy": None, "train_accuracy": None, "per_round": []}
        result |= {
            "status": "failed" if _failed(measured) else "ok",
            "reason": _failed(measured),
            "utility": before["utility"] if before else empty,
            "faults": before["faults"] if before else [],
            "timing": {
                "setup_s": None,
                "train_s": None,
                **_seconds(view, measured),
                "per_round_s": None,
            },
        }
        if before and (sent := before.get("communication")):
            result["communication"] = sent
        if before and (found := before.get("suspicion")):
            result["suspicion"] = found
        if before and (hidden := before.get("secagg")):
            result |= {"secagg": hidden, "notes": [*result["notes"], *masked.notes(hidden)]}
        result |= _leaks(transcript, stage)
        return folder, _write(folder, result, measured, who, stage)


def attack_transcript(
    stage: Stage,
    transcript: Transcript,
    truth: Truth,
    failure: str | None,
    on_attack: OnAttack = lambda done, total, name: None,
    delta: float = 0.0,
) -> tuple[View, Targets, Measured]:
    """Compute signals, run the attacks and measure them against the truth.

    ``delta`` is that of the claim which bounds on ε are held against.
    """
    view = view_of(stage, transcript)
    who = targets(stage, view, truth.nodes)
    return view, who, evaluate(stage, view, who, failure, on_attack, delta)


def _narrow(transcript: Transcript, stage: Stage, truth: Truth) -> Transcript:
    """Return what the asked-for vantage would have seen of a recorded transcript."""
    vantage, recorded = stage.stand(truth.nodes), named(transcript.vantage)
    if vantage.name == transcript.vantage:
        if len(transcript) and not all(vantage.view(o) for o in transcript[:1]):
            raise ConfigError(
                f"observer.participant={stage.observer.participant}: expected the client that "
                "recorded this run, another one was sent other models"
            )
        return transcript
    if recorded is None or vantage.name not in recorded.contains:
        raise ConfigError(
            f"observer.vantage={vantage.name}: expected one that sees no more than "
            f"'{transcript.vantage}', which recorded this run"
        )
    return transcript.through(vantage.name, vantage.shows, vantage.view, vantage.hides_updates)


def _utility(stage: Stage, training: Training) -> dict[str, Any]:
    model = FlatModel(stage.model)
    model.load(training.params)
    series = training.test_accuracy
    return {
        "test_accuracy": series[-1][1] if series else None,
        "train_accuracy": accuracy(model.module, stage.members),
        "per_round": [{"round": r, "test_accuracy": a} for r, a in series],
    }


def _leaks(transcript: Transcript, stage: Stage) -> dict[str, Any]:
    """Return what masked words look like; nothing where they need not look uniform."""
    if not getattr(stage.stack.strategy, "uniform_words", True):
        return {}
    return {"leak_check": found} if (found := leaks.check(transcript)) else {}


def _failed(measured: Measured) -> str | None:
    for row in measured.attacks:
        if row["status"] == "failed":
            return f"attack {row['name']}: {row['reason']}"
    if not any(row["status"] == "ok" for row in measured.attacks):
        row = measured.attacks[0]
        return f"no attack could be run; {row['name']}: {row['reason']}"
    return None


def _has_result(run_dir: Path) -> bool:
    return (run_dir / results.FILE_NAME).exists()


def _seconds(view: View, measured: Measured) -> dict[str, float]:
    apart = view.signals.seconds + measured.shadow_seconds
    return {
        "signals_s": view.signals.seconds,
        "shadows_s": measured.shadow_seconds,
        "attacks_s": max(measured.seconds - apart, 0.0),
    }


def _write(
    folder: Path, found: dict[str, Any], measured: Measured, who: Targets, stage: Stage
) -> results.Result:
    kept: dict[str, Any] = {f"score/{name}": s for name, s in measured.scores.items()}
    labels = stage.dataset.y[stage.candidates.index]
    np.savez_compressed(folder / results.SCORES_NAME, owner=who.owner, labels=labels, **kept)
    found["guards"] = guards(stage, found)
    results.write(folder / results.FILE_NAME, found)
    result = results.read(folder / results.FILE_NAME)
    (folder / "report.html").write_text(render(result), encoding="utf-8")
    return result
