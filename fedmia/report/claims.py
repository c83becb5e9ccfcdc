"""What is claimed of ε and what was proved, in words and cells."""

from collections.abc import Sequence

from fedmia.promised import CanaryClients, PrivacyClaim
from fedmia.report.wording import DASH, number
from fedmia.results import Result

NEIGHBOURS = {"add_remove": "add/remove", "replace_one": "replace one", None: DASH}


def vantage(result: Result) -> str:
    """Return where the adversary stood, as the configuration or else the rows say."""
    observer = result["config"].get("observer")
    named = observer.get("vantage") if isinstance(observer, dict) else None
    return str(named or next((row["vantage"] for row in result["attacks"]), DASH))


def covering(result: Result) -> PrivacyClaim | None:
    """Return the claim that ``epsilon_claimed`` is of, ``None`` where none covers the vantage."""
    where, epsilon = vantage(result), result["privacy"]["epsilon_claimed"]
    held = [c for c in result["privacy"].get("claims", []) if where in c["holds_against"]]
    return next((claim for claim in held if claim["epsilon"] == epsilon), None)


def uncovered(result: Result) -> str:
    """Return the sentence on a vantage that no claim covers."""
    return f"no claim covers vantage '{vantage(result)}'"


def line(result: Result) -> str | None:
    """Return claim and proof in one line, ``None`` where nothing is claimed."""
    privacy = result["privacy"]
    claims = privacy.get("claims", [])
    if not claims:
        return None
    if (claim := covering(result)) is None:
        words = f"{uncovered(result)}, others hold: {'; '.join(map(_epsilon, claims))}"
    else:
        words = _epsilon(claim)
        comparable = privacy.get("epsilon_comparable")
        if comparable is not None and comparable != claim["epsilon"]:
            words += f" · {number(comparable, 2)} for replacing one"
    return f"{words} · {_proved(result)}"


def table(result: Result) -> list[tuple[PrivacyClaim, list[str]]]:
    """Return each claim with its cells.

    Part, unit, neighbours, ε with its method, by RDP, for replacing one, δ, releases, against
    whom, noise.
    """
    return [(claim, _cells(claim)) for claim in result["privacy"].get("claims", [])]


def canaries(found: CanaryClients) -> list[tuple[str, str]]:
    """Return ``(what, value)`` of canary clients."""
    return [
        ("canary clients", f"{found['count']} in {found['dimension']:,} dimensions"),
        ("ε at least", number(found["epsilon_lower_bound"], 2)),
        ("ceiling", number(found["epsilon_ceiling"], 2)),
        ("estimate, final model", number(found["epsilon_estimate_final"], 2)),
        ("estimate, all rounds", number(found["epsilon_estimate_all_rounds"], 2)),
        ("normality, p", number(found["normality"])),
    ]


def told_apart(result: Result) -> Sequence[str]:
    """Return the notes without the lines that are shown in a place of their own."""
    privacy = result["privacy"]
    apart = (privacy.get("alarm"), privacy.get("stopped"))
    return [note for note in result["notes"] if note not in apart]


def _proved(result: Result) -> str:
    privacy = result["privacy"]
    if (bound := privacy["epsilon_lower_bound"]) is None:
        return "no lower bound was measured"
    return f"proved at least {number(bound, 2)} (ceiling {number(privacy['epsilon_ceiling'], 2)})"


def _epsilon(claim: PrivacyClaim) -> str:
    against = ", ".join(claim["holds_against"]) or "nobody"
    if claim["epsilon"] is None:
        why = "".join(f": {reason}" for reason in claim["reasons"][-1:])  # assumptions come first
        return f"none ({claim['unit']}; {against}{why})"
    facts = [claim["unit"], NEIGHBOURS[claim["neighbours"]], f"δ {delta(claim['delta'])}"]
    return f"{number(claim['epsilon'], 2)} ({', '.join([*facts, str(claim['method'])])}; {against})"


def _cells(claim: PrivacyClaim) -> list[str]:
    method = f" {claim['method']}" if claim["epsilon"] is not None and claim["method"] else ""
    return [
        claim["part"],
        claim["unit"],
        NEIGHBOURS[claim["neighbours"]],
        ("none" if claim["epsilon"] is None else number(claim["epsilon"], 2)) + method,
        number(claim["epsilon_rdp"], 2),
        number(claim["epsilon_replace_one"], 2),
        delta(claim["delta"]),
        str(claim["rounds"]),
        ", ".join(claim["holds_against"]) or "nobody",
        claim["noise"],
    ]


def delta(value: float | None) -> str:
    """Return δ as people write it, ``1e-5``; a dash for ``None``."""
    return DASH if value is None else f"{value:g}".replace("e-0", "e-")
