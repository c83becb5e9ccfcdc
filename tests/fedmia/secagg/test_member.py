"""What a client refuses: whatever is not its turn, or what no honest server would say."""

from dataclasses import replace

import numpy as np
import pytest
from executions import Crew, small, stranger
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmia.secagg import keys
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.noise import Noise
from fedmia.secagg.party import Secrets

NODES = [11, 22, 33, 44, 55]
SESSION = b"s" * 16


def brought_to(stage, protocol=None, nodes=NODES):
    """Return an execution whose clients have all finished this stage."""
    crew = Crew(protocol or small(threshold=2), nodes)
    steps = {
        "keys": lambda: setattr(crew, "peers", crew.execution.admit(crew.advertise())),
        "shares": lambda: crew.share(crew.peers),
        "masked": lambda: crew.receive(crew.execution.inbound()),
        "vouched": lambda: crew.vouch(set(nodes)),
        "done": lambda: crew.unmasked(set(nodes)),
    }
    for name, step in steps.items():
        if name != "vouched" or crew.protocol.malicious_server:
            step()
        if name == stage:
            return crew
    raise AssertionError(stage)


def messages(crew):
    """Return each message of the protocol to client 11, as the honest server would send it."""
    me, session = crew.members[11], crew.session
    survivors = sorted(crew.nodes)
    calls = {
        "advertise": lambda k: me.advertise(k, session, 1),
        "share": lambda k: me.share(k, session, crew.peers[11]),
        "receive": lambda k: me.receive(k, session, crew.execution.inbound()[11]),
        "unmask": lambda k: me.unmask(k, session, survivors, crew.signatures),
    }
    if crew.protocol.malicious_server:
        calls["vouch"] = lambda k: me.vouch(k, session, survivors)
    return calls


@pytest.mark.parametrize("malicious", [False, True])
@pytest.mark.parametrize("stage", ["keys", "shares", "masked", "vouched", "done"])
def test_only_the_message_whose_turn_it_is_is_answered(stage, malicious):
    if stage == "vouched" and not malicious:
        pytest.skip("there is no such stage")
    whole = brought_to("done", small(malicious_server=malicious))
    crew = brought_to(stage, small(malicious_server=malicious))
    before = {"keys": "share", "shares": "receive", "vouched": "unmask", "done": None}
    turn = {**before, "masked": "vouch" if malicious else "unmask"}[stage]
    whole.execution.session = crew.session  # the messages of one, the memory of the other
    for name, call in messages(whole).items():
        if name == turn:
            continue
        with pytest.raises(ProtocolError, match=r"replayed\?|expected after stage|another exec"):
            call(crew.known[11])


def test_a_message_of_another_session_is_refused():
    crew = brought_to("masked")
    with pytest.raises(ProtocolError, match="a message of another execution"):
        crew.members[11].unmask(crew.known[11], b"t" * 16, NODES, {})
    fresh = Secrets()
    with pytest.raises(ProtocolError, match="expected after stage 'keys', this client is at 'done"):
        crew.members[11].share(fresh, b"", crew.peers[11])


@pytest.mark.parametrize("session", [b"", b"short", b"s" * 17])
def test_the_name_of_an_execution_has_sixteen_bytes(session):
    with pytest.raises(ProtocolError, match="expected 16"):
        brought_to("keys").members[11].advertise(Secrets(), session, 1)


def test_keys_are_made_anew_for_every_round_and_never_for_an_earlier_one():
    member = brought_to("keys").members[11]
    first, mine = member.advertise(Secrets(), SESSION, 3)
    second, later = member.advertise(first, SESSION, 4)
    fields = ("mask_key", "share_key")
    assert len({getattr(p, f) for p in (mine, later) for f in fields}) == 4
    assert first.own_seed != second.own_seed
    for replayed in (4, 3, 0, -1):
        with pytest.raises(ProtocolError, match=rf"round {replayed}: expected a later one than 4"):
            member.advertise(second, b"t" * 16, replayed)


def test_nothing_but_the_round_is_remembered_after_the_unmasking():
    crew = brought_to("done")
    assert crew.known[11] == Secrets(server_round=1)
    with pytest.raises(ProtocolError, match=r"round 1: expected a later one than 1"):
        crew.members[11].advertise(crew.known[11], SESSION, 1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sets(st.sampled_from(NODES)), min_size=1, max_size=4), st.booleans())
def test_of_no_neighbour_both_shares_are_given_whatever_lists_are_sent(lists, malicious):
    crew = brought_to("masked", small(malicious_server=malicious))
    member, known, own, lost = crew.members[11], crew.known[11], set(), set()
    for survivors in map(sorted, lists):
        signatures = {}
        for node in survivors:  # every other client signs every list: all but 11 are corrupt
            corrupt, their = crew.members[node], crew.known[node]
            if malicious and node != 11 and set(survivors) <= set(NODES) and len(survivors) > 4:
                signatures[corrupt.identity.public] = corrupt.vouch(
                    replace(their, survivors=[]), crew.session, survivors
                )[1]
        try:
            if malicious:
                known, _ = member.vouch(known, crew.session, survivors)
            known, alive, gone = member.unmask(known, crew.session, survivors, signatures)
        except ProtocolError:
            continue
        own |= set(alive)
        lost |= set(gone)
    assert not own & lost
    assert own | lost in (set(), set(NODES) - {11})


def test_a_second_list_of_survivors_is_refused():
    crew = brought_to("masked")
    member = crew.members[11]
    after, own, lost = member.unmask(crew.known[11], crew.session, [11, 22, 33, 44], {})
    assert (set(own), set(lost)) == ({22, 33, 44}, {55})
    with pytest.raises(ProtocolError, match="a message of another execution"):
        member.unmask(after, crew.session, [11, 22, 33, 55], {})
    assert member.unmask(crew.known[11], crew.session, NODES, {})[1][55] != lost[55]


SURVIVORS = {
    "without this client": ([22, 33, 44, 55], "without this client"),
    "a repetition": ([11, 22, 33, 33], "with repetitions"),
    "too few": ([11, 22], "1 neighbours survived: expected at least threshold=2"),
    "strangers do not count": ([11, 22, 77, 88], "1 neighbours survived"),
}


@pytest.mark.parametrize("case", SURVIVORS)
def test_lists_that_cannot_be_true_are_refused(case):
    survivors, said = SURVIVORS[case]
    crew = brought_to("masked")
    with pytest.raises(ProtocolError, match=said):
        crew.members[11].unmask(crew.known[11], crew.session, survivors, {})


def test_one_who_never_shared_is_not_believed_to_survive():
    crew = brought_to("shares")
    inbound = crew.execution.inbound()[11]
    del inbound[55]
    known = crew.members[11].receive(crew.known[11], crew.session, inbound)
    with pytest.raises(ProtocolError, match="node 55 is said to survive, but never shared"):
        crew.members[11].unmask(known, crew.session, NODES, {})
    _, own, lost = crew.members[11].unmask(known, crew.session, [11, 22, 33, 44], {})
    assert (set(own), lost) == ({22, 33, 44}, {})


def test_the_noise_of_too_few_is_not_uncovered():
    noise = Noise("skellam", min_survivors=4)  # honest ones, and one may collude
    crew = brought_to("masked", small(threshold=2, max_weight=1, noise=noise))
    with pytest.raises(ProtocolError, match="4 clients survived: expected at least 5"):
        crew.members[11].unmask(crew.known[11], crew.session, [11, 22, 33, 44], {})


def _tampered(inbound):
    inbound[22] = inbound[22][:-1] + bytes([inbound[22][-1] ^ 1])


def _swapped(inbound):
    inbound[22], inbound[33] = inbound[33], inbound[22]


def _empty(inbound):
    inbound[22] = b""


SEALED = {"tampered": _tampered, "of another sender": _swapped, "empty": _empty}


@pytest.mark.parametrize("case", SEALED)
def test_shares_that_do_not_authenticate_are_refused(case):
    crew = brought_to("shares")
    inbound = crew.execution.inbound()[11]
    SEALED[case](inbound)
    with pytest.raises(
        ProtocolError, match=r"shares from node 22: a sealed message of .* does not"
    ):
        crew.members[11].receive(crew.known[11], crew.session, inbound)


def test_ones_own_shares_reflected_are_refused():
    crew = brought_to("shares")
    inbound = crew.execution.inbound()[11] | {22: crew.execution.sealed[11][22]}
    with pytest.raises(ProtocolError, match="shares from node 22"):
        crew.members[11].receive(crew.known[11], crew.session, inbound)


def test_shares_of_another_length_from_strangers_or_too_few_are_refused():
    crew = brought_to("shares")
    member, known = crew.members[11], crew.known[11]
    inbound = crew.execution.inbound()[11]
    with pytest.raises(ProtocolError, match="shares from node 99: not a neighbour"):
        member.receive(known, crew.session, inbound | {99: b""})
    with pytest.raises(ProtocolError, match=r"1 neighbours shared .*: expected at least thresh"):
        member.receive(known, crew.session, {22: inbound[22]})
    theirs = crew.known[22]
    key = keys.agree(theirs.share_key, keys.public_of(known.share_key), known.context + b"|share")
    ends = known.context + b"|share|" + (22).to_bytes(8, "big") + (11).to_bytes(8, "big")
    inbound[22] = keys.seal(key, b"\x00" * 65, ends)
    with pytest.raises(ProtocolError, match="shares from node 22: 65 bytes, expected 66"):
        member.receive(known, crew.session, inbound)


def _with(peers, **changes):
    return [replace(peers[0], **changes), *peers[1:]]


PEERS = {
    "too few": (lambda p: p[:1], "1 neighbours: expected at least threshold=2"),
    "too many": (lambda p: [*p, stranger()], "5 neighbours: expected at most 4"),
    "one twice": (lambda p: [p[1], *p[1:]], "two neighbours have the same node"),
    "the same point": (lambda p: _with(p, point=p[1].point), "the same point"),
    "the same mask key": (lambda p: _with(p, mask_key=p[1].mask_key), "the same mask_key"),
    "the same share key": (lambda p: _with(p, share_key=p[1].share_key), "the same share_key"),
    "itself": (lambda p: _with(p, node=11), "named as its own neighbour"),
    "the point of the secret": (lambda p: _with(p, point=0), "points of shares"),
    "a negative point": (lambda p: _with(p, point=-1), "points of shares"),
    "a low-order key": (lambda p: _with(p, share_key=bytes(32)), "low order"),
    "a short key": (lambda p: _with(p, share_key=b"k"), "malformed"),
}


@pytest.mark.parametrize("case", PEERS)
def test_neighbours_that_cannot_be_are_refused(case):
    change, said = PEERS[case]
    crew = brought_to("keys")
    with pytest.raises(ProtocolError, match=said):
        crew.members[11].share(crew.known[11], crew.session, change(crew.peers[11]))


@pytest.mark.parametrize("name", ["mask_key", "share_key"])
def test_a_client_is_not_its_own_neighbour_under_another_name(name):
    crew = brought_to("keys")
    mine = keys.public_of(getattr(crew.known[11], name))
    peers = _with(crew.peers[11], **{name: mine})
    with pytest.raises(ProtocolError, match="named as its own neighbour"):
        crew.members[11].share(crew.known[11], crew.session, peers)


def test_secrets_survive_the_way_through_a_record():
    for stage in ("keys", "shares", "masked", "done"):
        known = brought_to(stage).known[11]
        assert Secrets(**known.record()) == known


def test_masked_words_are_uniform_over_all_bytes():
    crew = brought_to("masked")
    masked = crew.masked(11, np.zeros(20_000, np.uint32))
    counts = np.bincount(masked.view(np.uint8), minlength=256)
    expected = masked.nbytes / 256
    chi_square = float(((counts - expected) ** 2 / expected).sum())  # 255 degrees of freedom
    assert abs(chi_square - 255) < 6 * np.sqrt(2 * 255)
