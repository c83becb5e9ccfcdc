"""With ``malicious_server``: a server that forges keys, or tells clients different stories."""

from dataclasses import replace

import numpy as np
import pytest
from executions import UNMASK, VOUCH, Crew, plain_sum, small, stranger, words_of

from fedmia.errors import ConfigError
from fedmia.secagg import keys
from fedmia.secagg.errors import ProtocolError
from fedmia.secagg.identities import Identities
from fedmia.secagg.party import Identity
from fedmia.secagg.protocol import Protocol, roll

NODES = [11, 22, 33, 44, 55, 66]
SIGNED = small(cohort=6, malicious_server=True)  # threshold 5
LOST_ONE = small(cohort=7, malicious_server=True)  # threshold 5 of 6


def advertised(protocol=SIGNED, nodes=NODES):
    crew = Crew(protocol, nodes)
    return crew, crew.execution.admit(crew.advertise())


def masked(nodes=range(1, 8), protocol=LOST_ONE):
    crew = Crew(protocol, nodes)
    crew.begin()
    return crew


def _unsigned(peer, crew):
    return replace(peer, identity=b"", signature=b"")


def _forged(peer, crew):
    return replace(peer, signature=bytes(64))


def _other_keys(peer, crew):
    return replace(
        stranger(peer.node, peer.point), identity=peer.identity, signature=peer.signature
    )


def _unregistered(peer, crew):
    return replace(peer, identity=keys.verify_key_of(keys.new_signing_key()))


def _other_node(peer, crew):
    return replace(peer, node=77)


def _last_round(peer, crew):
    member = crew.members[peer.node]
    _, old = member.advertise(replace(crew.known[peer.node], server_round=0), b"o" * 16, 1)
    return replace(old, point=peer.point)


FORGED = {
    _unsigned: "identity is not registered",
    _forged: "does not verify",
    _other_keys: "does not verify",
    _unregistered: "identity is not registered",
    _other_node: "does not verify",
    _last_round: "does not verify",
}


@pytest.mark.parametrize("forge", FORGED, ids=lambda f: f.__name__)
def test_keys_that_their_owner_did_not_sign_for_this_execution_are_refused(forge):
    crew, peers = advertised()
    false = [forge(peers[11][0], crew), *peers[11][1:]]
    with pytest.raises(ProtocolError, match=FORGED[forge]):
        crew.members[11].share(crew.known[11], crew.session, false)


def test_one_identity_does_not_count_twice():
    crew, peers = advertised()
    corrupt = crew.members[22]
    again = replace(corrupt, node=77)
    _, double = again.advertise(replace(crew.known[22], server_round=0), crew.session, 1)
    false = [p for p in peers[11] if p.node != 33] + [replace(double, point=77)]
    with pytest.raises(ProtocolError, match="two neighbours have the same identity"):
        crew.members[11].share(crew.known[11], crew.session, false)


def test_a_whole_execution_works_and_survives_losses_up_to_the_threshold():
    nodes = list(range(1, 8))
    words = words_of(nodes)
    for lost in ({}, {3: VOUCH}, {3: UNMASK}):
        total, survivors = Crew(LOST_ONE, nodes, lost).run(words)
        np.testing.assert_array_equal(total, plain_sum(words, survivors))
    with pytest.raises(ProtocolError, match="neighbours vouch for the survivors"):
        Crew(LOST_ONE, nodes, {3: VOUCH, 4: VOUCH}).run(words)


def test_a_client_signs_one_list_only_and_unmasks_no_other():
    crew = masked()
    member, everyone = crew.members[1], list(range(1, 8))
    with pytest.raises(ProtocolError, match="expected after stage 'vouched'"):
        member.unmask(crew.known[1], crew.session, everyone, {})
    known, _ = member.vouch(crew.known[1], crew.session, everyone)
    with pytest.raises(ProtocolError, match="expected after stage 'masked'"):
        member.vouch(known, crew.session, everyone[:-1])
    with pytest.raises(ProtocolError, match="another list of survivors than the one signed"):
        member.unmask(known, crew.session, everyone[:-1], {})


def test_lists_that_differ_between_clients_open_nothing():
    crew = masked()
    told = {n: [1, 2, 3, 4, 5, 6] if n <= 3 else [*range(1, 8)] for n in range(1, 7)}
    known, signatures = {}, {}
    for node, survivors in told.items():
        member = crew.members[node]
        known[node], signature = member.vouch(crew.known[node], crew.session, survivors)
        signatures[node] = (member.identity.public, signature)
    for node, survivors in told.items():
        alike = [n for n in told if told[n] == survivors]
        for given in (alike, list(told)):
            with pytest.raises(ProtocolError, match=r"vouch for the survivors|does not verify"):
                crew.members[node].unmask(
                    known[node], crew.session, survivors, dict(signatures[n] for n in given)
                )


def test_signatures_of_strangers_of_oneself_or_of_another_execution_do_not_count():
    crew = masked()
    me, everyone = crew.members[1], list(range(1, 8))
    crew.vouch(set(everyone))
    mine = me.identity.public
    others = {i: s for i, s in crew.signatures.items() if i != mine}
    four = dict(list(others.items())[:4])
    outsider = keys.new_signing_key()
    forged = keys.sign(outsider, roll(crew.execution.context, everyone))
    for extra in ({mine: crew.signatures[mine]}, {keys.verify_key_of(outsider): forged}):
        with pytest.raises(ProtocolError, match=r"4 neighbours vouch .*threshold=5"):
            me.unmask(crew.known[1], crew.session, everyone, four | extra)
    last = next(i for i in others if i not in four)
    owner = next(m for m in crew.members.values() if m.identity.public == last)
    old = keys.sign(owner.identity.signing_key, roll(b"another context", everyone))
    with pytest.raises(ProtocolError, match="does not verify"):
        me.unmask(crew.known[1], crew.session, everyone, four | {last: old})
    known, own, lost = me.unmask(crew.known[1], crew.session, everyone, others)
    assert (set(own), lost, known.stage) == (set(everyone) - {1}, {}, "done")


def test_one_who_has_no_identity_does_not_sign():
    crew = masked(range(1, 6), small())
    with pytest.raises(ProtocolError, match="asked to sign without malicious_server=true"):
        crew.members[1].vouch(crew.known[1], crew.session, [1, 2, 3, 4, 5])


def test_a_signature_of_keys_is_none_of_survivors():
    identity = Identities(clients=1, seed=3).of({"partition-id": 0})
    assert isinstance(identity, Identity)
    crew, peers = advertised()
    peer = peers[11][0]
    with pytest.raises(ProtocolError, match="does not verify"):
        keys.verify(peer.identity, peer.signature, roll(crew.execution.context, NODES))


def shares_by_two_lists(protocol, corrupt):
    """Lie about one honest client: some are told that it survived, the others that it was lost.

    Return how many shares of its own mask and of its key the server gets from all others.
    """
    nodes = list(range(protocol.cohort))
    crew = Crew(protocol, nodes)
    crew.begin()
    target, honest, colluding = nodes[-1], nodes[corrupt:], nodes[:corrupt]
    half = len(honest) // 2
    lists = {True: nodes, False: nodes[:-1]}
    told = {True: [target, *honest[:half]], False: honest[half:-1]}
    got = {}
    for alive, survivors in lists.items():
        given = 0
        signatures = {}
        for node in [*colluding, *told[alive]]:
            member, known = crew.members[node], crew.known[node]
            after, signature = member.vouch(known, crew.session, survivors)
            signatures[member.identity.public] = signature
            if node not in colluding:
                crew.known[node] = after
        for node in set(told[alive]) - {target}:
            try:
                _, own, lost = crew.members[node].unmask(
                    crew.known[node], crew.session, survivors, signatures
                )
            except ProtocolError:
                continue
            given += target in (own if alive else lost)
        got[alive] = given + len(colluding)
    return got[True], got[False]


@pytest.mark.parametrize(("n", "corrupt"), [(10, 0.4), (60, 0.45)])
def test_two_signed_lists_do_not_open_both_secrets_of_a_client(n, corrupt):
    colluding = round(corrupt * n)
    protocol = Protocol(n, corrupt=corrupt, dropout=0.0, malicious_server=True)
    assert min(shares_by_two_lists(protocol, colluding)) < protocol.shares_needed


def test_two_signed_lists_open_both_secrets_where_more_collude_than_was_said():
    # 27 of 60 collude; a threshold of 41 is more than two thirds of the others, and not enough
    with pytest.raises(ConfigError, match="threshold=41: expected at least 44"):
        Protocol(60, corrupt=0.45, threshold=41, malicious_server=True)
    protocol = Protocol(60, corrupt=0.1, threshold=41, malicious_server=True)
    assert min(shares_by_two_lists(protocol, 27)) >= protocol.shares_needed
