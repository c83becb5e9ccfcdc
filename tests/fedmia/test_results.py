import copy
import json
import math
from pathlib import Path
from typing import Any

import pytest

from fedmia.results import ResultError, config_key, find, read, validate, write

DOCUMENT: dict[str, Any] = {
    "schema": 1,
    "key": "0123456789abcdef",
    "config": {"seed": 3, "train": {"lr": 0.1}},
    "versions": {"fedmia": "0.1.0"},
    "seed": 3,
    "created": "2026-01-02T03:04:05Z",
    "status": "ok",
    "reason": None,
    "utility": {
        "test_accuracy": 0.71,
        "train_accuracy": 0.93,
        "per_round": [{"round": 1, "test_accuracy": 0.4}],
    },
    "candidates": {
        "members": 200,
        "nonmembers": 897,
        "other_members": 180,
        "auxiliary": 0,
        "null_run": False,
        "sha256": "ab",
        "split_sha256": "cd",
    },
    "attacks": [
        {
            "name": "loss_series",
            "vantage": "server",
            "status": "ok",
            "auc": 0.85,
            "auc_ci": [0.83, 0.87],
            "tpr_at_fpr": {"0.01": 0.12, "0.001": None},
            "tpr_ci": {"0.01": [0.1, 0.15], "0.001": None},
            "balanced_accuracy": 0.78,
            "advantage": 0.56,
            "auc_label_matched": 0.84,
            "other_members": {"auc": 0.8, "auc_ci": [0.7, 0.9], "tpr_at_fpr": {"0.01": 0.1}},
            "per_target": [
                {"client": 0, "auc": 0.9, "auc_ci": [0.8, 1.0], "tpr_at_fpr": {"0.01": 0.2}}
            ],
            "auc_target_mean": 0.85,
            "auc_per_round": [{"round": 1, "auc": 0.6}],
            "roc": {"fpr": [0.0, 1.0], "tpr": [0.1, 1.0]},
            "histogram": {
                "edges": [0, 1, 2],
                "members": [1, 2],
                "nonmembers": [2, 1],
                "other_members": None,
            },
            "seconds": 0.4,
        },
        {"name": "fedmia", "vantage": "server", "status": "not_applicable", "reason": "hidden"},
    ],
    "baselines": [{"name": "label_prior", "vantage": "blind", "status": "failed", "reason": "x"}],
    "privacy": {
        "epsilon_claimed": None,
        "delta": None,
        "epsilon_lower_bound": 0.9,
        "epsilon_ceiling": 5.6,
        "confidence": 0.95,
    },
    "faults": [{"round": 2, "client": 4, "reason": "timeout"}],
    "notes": ["20% of all labels were re-drawn uniformly"],
    "timing": {
        "setup_s": 3.1,
        "train_s": 1.2,
        "signals_s": 0.6,
        "attacks_s": 0.3,
        "per_round_s": None,
    },
}


def changed(path: str, value: object) -> dict[str, Any]:
    """Return the document with one field set; integer steps index lists."""
    document: Any = copy.deepcopy(DOCUMENT)
    *way, last = (int(step) if step.isdigit() else step for step in path.split("/"))
    place = document
    for step in way:
        place = place[step]
    place[last] = value
    return document


def without(path: str) -> dict[str, Any]:
    document = changed(path, None)
    place: Any = document
    *way, last = (int(step) if step.isdigit() else step for step in path.split("/"))
    for step in way:
        place = place[step]
    del place[last]
    return document


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write(tmp_path / "result.json", DOCUMENT)
    assert read(tmp_path / "result.json") == DOCUMENT
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


@pytest.mark.parametrize(
    ("path", "value", "allowed"),
    [
        ("schema", 2, "expected 1"),
        ("schema", "1", "expected 1"),
        ("key", None, "a string"),
        ("config", [], "an object"),
        ("config/train/lr", math.inf, "a finite number"),
        ("versions/fedmia", 1, "a string"),
        ("seed", 0.5, "an integer"),
        ("status", "done", '"ok" or "failed"'),
        ("reason", 3, "a string"),
        ("utility/test_accuracy", 1.01, "in [0, 1]"),
        ("utility/per_round/0/round", -1, ">= 0"),
        ("candidates/members", 2.5, "an integer"),
        ("candidates/null_run", 0, "true or false"),
        ("attacks", {}, "a list"),
        ("attacks/0/status", "fine", '"ok" or "not_applicable" or "failed"'),
        ("attacks/0/auc", math.nan, "a finite number"),
        ("attacks/0/auc", None, "a finite number"),
        ("attacks/0/auc", True, "a finite number"),
        ("attacks/0/auc_ci", [0.9, 0.8], "[low, high]"),
        ("attacks/0/auc_ci", [0.9], "[low, high]"),
        ("attacks/0/tpr_at_fpr/0.01", -0.1, "in [0, 1]"),
        ("attacks/0/tpr_ci/0.01", 0.1, "a list"),
        ("attacks/0/advantage", -1.5, "in [-1, 1]"),
        ("attacks/0/other_members/auc_ci", [0.1, 0.2, 0.3], "[low, high]"),
        ("attacks/0/per_target/0/client", "a", "an integer"),
        ("attacks/0/auc_per_round/0/auc", 2, "in [0, 1]"),
        ("attacks/0/roc", {"fpr": [0.0], "tpr": []}, "fpr and tpr of one length"),
        (
            "attacks/0/histogram",
            {"edges": [0, 1], "members": [1, 2], "nonmembers": [1], "other_members": None},
            "one more edge than bins",
        ),
        ("attacks/0/seconds", -1, ">= 0"),
        ("baselines/0/reason", None, "a string"),
        ("privacy/epsilon_lower_bound", "big", "a finite number"),
        ("faults/0/client", -2, ">= 0"),
        ("notes/0", 1, "a string"),
        ("timing/train_s", math.inf, "a finite number"),
    ],
)
def test_a_broken_field_is_named_with_its_file_and_what_is_allowed(
    tmp_path: Path, path: str, value: object, allowed: str
) -> None:
    document = changed(path, value)
    file = tmp_path / "result.json"
    file.write_text(json.dumps(document).replace("NaN", "1e999").replace("Infinity", "1e999"))
    field = "".join(f"[{s}]" if s.isdigit() else f".{s}" for s in path.split("/")).lstrip(".")

    with pytest.raises(ResultError) as caught:
        read(file)
    message = str(caught.value)
    assert message.startswith(f"{file}: {field}=")
    assert allowed in message
    assert "\n" not in message

    file.unlink()
    with pytest.raises(ResultError, match="expected"):
        write(file, document)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", [*DOCUMENT, "attacks/0/auc_ci", "attacks/1/reason"])
def test_a_missing_field_is_named(path: str) -> None:
    field = path.replace("attacks/0/", "attacks[0].").replace("attacks/1/", "attacks[1].")
    with pytest.raises(ResultError) as caught:
        validate(without(path), "somewhere")
    assert str(caught.value) == f"somewhere: {field}: missing"


@pytest.mark.parametrize("text", ["", "{", "not json", '{"schema": NaN}', "\ud800", "[" * 10**5])
def test_a_file_that_is_not_json_is_one_line_with_its_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "result.json"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ResultError) as caught:
        read(file)
    assert str(caught.value).startswith(f"{file}: not a complete JSON document")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "null", "3", '{"name": "a package"}'])
def test_a_foreign_document_is_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "result.json"
    file.write_text(text)
    with pytest.raises(ResultError, match=r"expected an object|schema: missing"):
        read(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResultError, match=r"result\.json: cannot be read: No such file"):
        read(tmp_path / "result.json")


def test_a_write_that_fails_leaves_the_old_result(tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    write(file, DOCUMENT)
    before = file.read_bytes()
    with pytest.raises(ResultError, match=r"attacks\[0\]\.auc=nan"):
        write(file, changed("attacks/0/auc", math.nan))
    assert file.read_bytes() == before
    write(file, changed("seed", 4))
    assert read(file)["seed"] == 4


def test_a_disk_that_fills_up_halfway_leaves_the_old_result_and_no_draft(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "result.json"
    write(file, DOCUMENT)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("os.fsync", full)
        with pytest.raises(OSError, match="No space"):
            write(file, changed("seed", 4))
    assert read(file) == DOCUMENT
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_runs_are_found_at_any_depth_once_and_in_order(tmp_path: Path) -> None:
    for name, seed in [("sweep/1", 1), ("sweep/0", 0), ("alone", 7)]:
        (tmp_path / name).mkdir(parents=True)
        write(tmp_path / name / "result.json", changed("seed", seed))

    found = find([tmp_path / "sweep", tmp_path, tmp_path / "alone"])

    assert [(path.name, result["seed"]) for path, result in found] == [
        ("alone", 7),
        ("0", 0),
        ("1", 1),
    ]
    assert find([tmp_path / "alone"])[0][0] == tmp_path / "alone"
    (tmp_path / "empty").mkdir()
    assert find([tmp_path / "empty"]) == []


def test_looking_for_runs_where_there_is_nothing_or_something_broken_says_so(
    tmp_path: Path,
) -> None:
    with pytest.raises(ResultError, match="nowhere: expected a directory"):
        find([tmp_path / "nowhere"])
    (tmp_path / "result.json").write_text("{")
    with pytest.raises(ResultError, match=r"result\.json: not a complete JSON"):
        find([tmp_path])


def test_the_key_depends_on_the_science_and_on_nothing_else() -> None:
    config = {"seed": 0, "train": {"lr": 0.1, "epochs": 1}, "output_dir": "a", "pool": {"n": 2}}
    moved = {"pool": "ray", "output_dir": "b", "train": {"epochs": 1, "lr": 0.1}, "seed": 0}
    key = config_key(config)
    assert key == config_key(moved)
    assert len(key) == 16
    assert int(key, 16) >= 0
    assert key != config_key(config | {"seed": 1})
    assert key != config_key(config | {"train": {"lr": 0.2, "epochs": 1}})
    # The same name deeper down is science.
    assert key != config_key(config | {"train": {"lr": 0.1, "epochs": 1, "pool": 1}})


def test_the_key_is_the_one_worked_out_by_hand() -> None:
    # printf '{"a":[1,2],"seed":0}' | sha256sum
    assert config_key({"seed": 0, "a": [1, 2], "pool": "ray"}) == "5cb477e8db26e2bf"


def test_fields_that_older_results_lack_may_be_absent_and_are_checked_where_they_are() -> None:
    assert "guards" not in validate(DOCUMENT)
    rate = {"0.01": 0.011, "0.001": None}
    new: dict[str, Any] = {
        "achieved_fpr": rate,
        "achieved_tpr": rate,
        "ppv": {"0.1": 0.5, "0.5": None},
        "min_fpr": 1 / 897,
        "source_accuracy": None,
        "source_accuracy_ci": None,
        "source_chance": 0.1,
    }
    for field, value in new.items():
        validate(changed(f"attacks/0/{field}", value))
    guard = {"name": "seeds", "status": "warn", "detail": "one seed"}
    validate(changed("guards", [guard]))
    validate(changed("candidates/source_blind", 0.1))
    for path, value, where in (
        ("attacks/0/ppv", {"0.1": 1.5}, r"attacks\[0\].ppv.0.1=1.5: expected in \[0, 1\]"),
        ("attacks/0/source_accuracy_ci", [0.9, 0.1], "source_accuracy_ci=a list: expected"),
        ("guards", [guard | {"status": "fine"}], r"guards\[0\].status='fine': expected"),
        ("guards", [{"name": "seeds", "status": "warn"}], r"guards\[0\].detail: missing"),
    ):
        with pytest.raises(ResultError, match=where):
            validate(changed(path, value))
