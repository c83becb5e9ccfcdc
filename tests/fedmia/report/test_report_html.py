import re
from html.parser import HTMLParser

import pytest

from fedmia.report.html import per_target, render
from fedmia.results import Result

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Page(HTMLParser):
    """Collects visible text, tags and attributes, and fails on tags that do not match."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


@pytest.fixture(scope="module")
def rendered(result: Result) -> str:
    return render(result)


def test_the_page_holds_the_numbers_of_the_result(changed) -> None:
    page = Page(render(changed({"attacks.1.auc": 0.8534, "attacks.1.auc_ci": [0.8234, 0.8831]})))
    for words in (
        "Membership leaks. The strongest of 3 attacks, loss_series",
        "0.853 [0.823, 0.883]",
        "12.3% [8.1%, 16.4%]",
        "not applicable: fedmia : needs client updates, secagg shows only their sum",
        "failed: NaN in the update of client 3 in round 7",
        "0.507 [0.481, 0.533]",
        "20% of all labels were re-drawn uniformly",
        "ceiling 4.17",
        "0.611 [0.580, 0.640]",
        "0.790 [0.69, 0.89]",
        "round 7, client 3: NaN in the update",
        "samples_per_client: 20",
        "flwr 1.41.0",
        "train 1.25 s",
        "a1" * 32,
        "Digits · Stratified · Mlp · FedAvg · 10 clients · 30 rounds · seed 3",
    ):
        assert words in page.text, words
    assert page.tags.count("svg") == 5
    assert page.tags.count("title") == 1


def test_what_is_null_is_a_dash_and_never_a_zero(changed) -> None:
    nothing = {
        "utility.test_accuracy": None,
        "privacy.epsilon_lower_bound": None,
        "privacy.epsilon_ceiling": None,
        "attacks.0.auc_label_matched": None,
        "attacks.0.balanced_accuracy": None,
        "attacks.0.advantage": None,
        "attacks.0.per_target.0.auc": None,
        "attacks.0.per_target.0.auc_ci": None,
        "attacks.0.other_members.auc": None,
        "attacks.0.other_members.auc_ci": None,
    }
    page = render(changed(nothing))
    row = re.search(r"<tr><td>yeom_loss</td>.*?</tr>", page, re.S)
    assert row is not None
    assert Page(row[0]).text.endswith("[8.1%, 16.4%] – – – – 0.42")
    text = Page(page).text
    assert "test accuracy – training 0.934" in text
    assert "ε at least – ceiling –" in text
    assert "0.0%" not in text
    assert not re.search(r"\bNone\b(?!\.)|\bnan\b", text)


def test_hostile_text_stays_text(changed) -> None:
    hostile = "<script>alert('x')</script>\"><img src=x onerror=y>"
    changes = {
        "attacks.0.name": hostile,
        "attacks.0.vantage": hostile,
        "attacks.3.reason": hostile,
        "faults.0.reason": hostile,
        "notes.0": hostile,
        "config.train": {hostile: hostile},
        "versions": {hostile: hostile},
        "key": hostile,
        "created": hostile,
        "baselines.0.auc_ci": [0.6, 0.7],
        "baselines.0.name": hostile,
        "status": "failed",
        "reason": hostile,
    }
    result = changed(changes)
    for text in (render(result), render([result, changed()])):
        page = Page(text)
        assert "script" not in page.tags
        assert "img" not in page.tags
        assert not any(name.startswith("on") for name, _ in page.attributes)
        assert hostile in " ".join(page.words)


def test_the_pages_ask_nothing_of_the_network_and_run_nothing(rendered, result: Result) -> None:
    for text in (rendered, render([result, result])):
        page = Page(text)
        assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
        links = [value or "" for name, value in page.attributes if name.endswith(("href", "src"))]
        assert all(link.startswith("#") for link in links)
        assert all(ref.startswith("#") for ref in re.findall(r"url\(([^)]*)\)", text))
        assert "@import" not in text
        assert ("http-equiv", "Content-Security-Policy") in page.attributes


def test_ids_are_unique_where_something_points_at_them(rendered: str) -> None:
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', rendered))
    assert used
    for name in used:
        assert rendered.count(f'id="{name}"') == 1


def test_confounding_is_a_visible_caution_and_its_absence_is_silent(rendered, changed) -> None:
    assert "Caution" not in Page(rendered).text
    page = Page(render(changed({"baselines.1.auc_ci": [0.6, 0.7]})))
    assert "Caution. The attack AUCs are confounded." in page.text
    assert ("class", "warning") in page.attributes


def test_a_run_that_failed_early_still_makes_a_page(changed) -> None:
    early = changed(
        {
            "status": "failed",
            "reason": "loss is NaN in round 1",
            "attacks": changed()["attacks"][3:],
            "baselines": [],
            "utility": {"test_accuracy": None, "train_accuracy": None, "per_round": []},
            "timing.signals_s": None,
        }
    )
    page = Page(render(early))
    assert "This run failed. loss is NaN in round 1" in page.text
    assert "signals –" in page.text
    assert "svg" not in page.tags


def test_attacks_with_different_targets_share_one_table(changed) -> None:
    first = changed()["attacks"][0]
    second = first | {"name": "other", "per_target": first["per_target"][2:4]}
    rows = per_target([first | {"per_target": first["per_target"][:3]}, second])
    assert [(client, [bool(cell) for cell in cells]) for client, cells in rows] == [
        (0, [True, False]),
        (1, [True, False]),
        (2, [True, True]),
        (3, [False, True]),
    ]
    assert "per target client" in Page(render(changed({"attacks": [first, second]}))).text.lower()


def test_several_runs_make_one_comparison(changed) -> None:
    dp = {"_target_": "strategies.dp.DpCentral", "noise": 1.0}
    runs = [changed({"seed": s, "attacks.1.auc": 0.8 + s / 100}) for s in range(3)]
    runs += [changed({"config.strategy": dp, "baselines.0.auc_ci": [0.6, 0.7]})]
    page = Page(render(runs))
    for words in (
        "4 runs, 4 seeds; varied: strategy.",
        "FedAvg loss_series server 3 0.810 [0.785, 0.835] 12.3% 0.701 0.712 0.507",
        "DpCentral loss_series server 1",
        "0.507 !",
        "1 of 4 runs",
        "fedmia: needs client updates",
        "num_clients: 10",
        "DpCentral · loss_series",
    ):
        assert words in page.text, words
    assert "noise: 1.0" not in page.text


def test_differences_stand_under_what_they_are_taken_to(changed) -> None:
    dp = {"config.strategy": {"_target_": "a.Dp"}}
    own = {"config.attack": {"yeom_loss": {"mode": "mean"}}}
    base = {"config.attack": {"yeom_loss": {"mode": "last"}}}
    text = Page(render([changed(base), changed(base | dp)])).text
    assert "Differences to FedAvg strategy attack vantage seeds" in text
    text = Page(render([changed(base), changed(base | dp), changed(own)])).text
    assert "Differences to the configuration under “than” strategy attack.mode attack" in text
    assert "FedAvg mean yeom_loss server last 1 +0.000 +0.000" in text
    assert "Dp last yeom_loss server FedAvg 1 +0.000 +0.000" in text


def test_the_table_of_attacks_has_no_column_that_says_the_same_in_every_row(rendered) -> None:
    text = Page(rendered).text
    assert "attack AUC [CI] TPR@10%FPR" in text
    assert "Vantage: server. Members of a target client" in text


@pytest.mark.parametrize("count", [1, 2])
def test_a_list_is_a_comparison_whatever_its_length(changed, count: int) -> None:
    assert "fedmia comparison" in render([changed()] * count)


def full(changed, **more) -> Result:
    """Return a result with everything that results of older runs lack."""
    fields = {
        "achieved_fpr": {"0.1": 0.101, "0.01": 0.0123, "0.001": None},
        "achieved_tpr": {"0.1": 0.401, "0.01": 0.117, "0.001": None},
        "ppv": {"0.01": 0.094, "0.1": 0.512, "0.5": 0.904},
        "min_fpr": 1 / 900,
        "source_accuracy": 0.423,
        "source_accuracy_ci": [0.361, 0.488],
        "source_chance": 0.1,
    }
    attack = changed()["attacks"][1] | fields | {"auc_per_round": None}
    changes = {"attacks": [attack], "utility.per_round": [], "candidates.source_blind": 0.151}
    guards = [
        {"name": "disjoint", "status": "pass", "detail": "nothing on both sides"},
        {"name": "seeds", "status": "warn", "detail": "one seed"},
        {"name": "accountant", "status": "fail", "detail": "proved <more> than claimed"},
    ]
    return changed(changes | {"guards": guards} | more)


def test_guards_sources_and_calibrated_rates_are_shown_where_a_result_has_them(
    changed, rendered: str
) -> None:
    page = Page(render(full(changed)))
    for words in (
        "✓ pass disjoint : nothing on both sides",
        "! warn seeds : one seed",
        "✗ fail accountant : proved <more> than claimed",
        "Caution. The guard “accountant” failed: proved <more> than claimed.",
        "0.611 [0.580, 0.640] 42.3% [36.1%, 48.8%]",
        "class histograms alone 15.1%",
        "guessing 0.500 0.500 10.0%",
        "PPV, 1.0% members",
        "loss_series 1.23% 11.7% 9.4% 51.2% 90.4%",
    ):
        assert words in page.text, words
    old = Page(rendered).text
    for words in ("Guards", "class histograms alone", "set beforehand"):
        assert words not in old


def test_a_rate_that_no_half_resolves_has_no_calibrated_table(changed) -> None:
    unresolved = {"attacks.0.achieved_fpr": {"0.1": 0.1, "0.01": None}}
    assert "set beforehand" not in Page(render(full(changed, **unresolved))).text


def test_many_attacks_are_ranked_and_fit_a_page_of_moderate_size(changed) -> None:
    one = changed()["attacks"][0]
    crowd = [
        one | {"name": f"attack{i:02}", "auc": i / 35, "auc_ci": [i / 35, 1.0]} for i in range(35)
    ]
    away = {"vantage": "server", "status": "not_applicable", "reason": "needs known members"}
    skipped = [{"name": f"skipped{i}", **away} for i in range(8)]
    text = render(changed({"attacks": [*crowd, *skipped]}))
    page = Page(text)
    assert len(text.encode()) < 1_500_000
    assert page.tags.count("svg") == 14
    assert "The 12 highest AUCs of 35." in page.text
    names = re.findall(r"<tr><td>(attack\d\d)</td>\n<td class=\"n\">[\d.]+ <small>\[.*?, 1", text)
    assert names == [f"attack{i:02}" for i in range(34, -1, -1)]
    together = ", ".join(f"skipped{i}" for i in range(8))
    assert f"not applicable: {together} : needs known members" in page.text
