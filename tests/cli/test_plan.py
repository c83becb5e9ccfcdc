import pytest


def test_a_plan_says_what_the_candidates_resolve_and_trains_nothing(fedmia, tmp_path):
    said = fedmia("plan", f"output_dir={tmp_path}")

    assert said.code == 0, said.err
    assert "200 members, 900 non-members: the smallest FPR is 0.0011" in " ".join(said.out.split())
    rows = [line.split() for line in said.out.splitlines() if line.strip().startswith(("1", "0."))]
    assert rows[0][:2] == ["10.0%", "90"]
    assert rows[1][:2] == ["1.0%", "9"]
    assert rows[2][:2] == ["0.1%", "0"]
    assert "–" in rows[2], "a rate below 1/900 has no TPR"
    assert not any(tmp_path.iterdir())


def test_a_curious_participant_is_not_asked_about_its_own_records(fedmia, tmp_path):
    said = fedmia("plan", f"output_dir={tmp_path}", "observer.vantage=participant")

    assert "180 members, 900 non-members" in " ".join(said.out.split())


def test_records_that_the_adversary_knows_are_not_counted(fedmia, tmp_path):
    """Of 20 members a client, 2 of each class, it knows 1; and as many held-out records."""
    said = fedmia("plan", f"output_dir={tmp_path}", "knowledge.known_members=0.5")

    assert "100 members, 890 non-members" in " ".join(said.out.split())


@pytest.mark.parametrize("override", ["num_clients=0", "candidates.nonmembers=3", "attack=[]"])
def test_a_plan_refuses_what_a_run_would_refuse(fedmia, override):
    said = fedmia("plan", override)

    assert said.code == 2
    assert said.err.startswith(f"error: {override.partition('=')[0]}=")
