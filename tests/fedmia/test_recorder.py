"""A round is written once, when all that its vantage shows of it is known."""

from types import SimpleNamespace

import numpy as np
import pytest

from fedmia.recorder import Recorder
from fedmia.records import Observation, Update
from fedmia.transcript import Transcript, TranscriptWriter
from fedmia.vantages import FinalModel, GroupedServer, MaskedServer

MODEL = {"w": np.zeros(2, np.float32)}
SUM = Update(5, 30, {"w": np.ones(2, np.float32)})


def recorder(path, vantage, seen=(0, ())):
    strategy = SimpleNamespace(seen=seen)
    writer = TranscriptWriter(path, vantage.name, vantage.shows, vantage.hides_updates)
    return Recorder(vantage, writer, strategy), strategy


def rounds(path):
    return [(one.round, [u.node_id for u in one.updates]) for one in Transcript(path)]


def test_sums_that_are_uncovered_later_become_the_updates_of_their_round(tmp_path):
    here, strategy = recorder(tmp_path, GroupedServer("masks"))
    here.record(Observation(1, MODEL, (5, 6, 7)))
    assert rounds(tmp_path) == []
    strategy.seen = (1, (SUM,))
    here.settle()
    assert rounds(tmp_path) == [(1, [5])]
    (update,) = Transcript(tmp_path)[0].updates
    assert update.num_examples == 30
    np.testing.assert_array_equal(update.delta["w"], SUM.delta["w"])


def test_sums_of_another_round_are_not_taken_for_its_own(tmp_path):
    here, _ = recorder(tmp_path, GroupedServer("masks"), seen=(1, (SUM,)))
    here.record(Observation(2, MODEL, (5, 6, 7)))
    here.record(Observation(3, MODEL, (5, 6, 7)))
    assert rounds(tmp_path) == [(2, [])]
    here.settle()
    here.settle()
    assert rounds(tmp_path) == [(2, []), (3, [])]


@pytest.mark.parametrize("vantage", [MaskedServer("masks"), FinalModel()])
def test_elsewhere_rounds_are_written_at_once_and_without_sums_of_groups(tmp_path, vantage):
    here, _ = recorder(tmp_path, vantage, seen=(1, (SUM,)))
    here.record(Observation(1, MODEL, (5, 6, 7)))
    here.settle()
    assert rounds(tmp_path) == ([] if isinstance(vantage, FinalModel) else [(1, [])])
