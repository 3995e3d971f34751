"""Nobody passes without the token, nothing recorded passes again, and no proof serves as another."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.link.address import Address, new_token
from supervisor.link.handshake import answer, answered, challenge, hello, read_challenge, read_hello
from supervisor.link.wire import Decoder, Frame, encode

TOKEN, OTHER = b"t" * 32, b"o" * 32
SAID = hello(TOKEN, {"node": 3, "host": "b"}, "instance", "nonce")
PROOF = SAID.fields["proof"]
ASKED = challenge(TOKEN, PROOF, "theirs")


def test_a_right_hello_tells_who_it_is_after_a_trip_over_the_wire() -> None:
    (frame,) = Decoder().feed(encode(SAID))
    said = read_hello(TOKEN, frame)
    assert said is not None
    assert (said.node, said.instance, said.fields) == (3, "instance", {"node": 3, "host": "b"})


def test_another_token_proves_nothing_in_any_step() -> None:
    assert read_hello(OTHER, SAID) is None
    assert read_challenge(OTHER, PROOF, ASKED) is None
    assert not answered(OTHER, PROOF, "theirs", answer(TOKEN, PROOF, "theirs"))


@given(st.integers(0, len(SAID.body) - 1), st.integers(1, 255))
def test_no_byte_of_a_hello_can_be_changed(at: int, change: int) -> None:
    body = bytearray(SAID.body)
    body[at] ^= change
    assert read_hello(TOKEN, replace(SAID, body=bytes(body))) is None


@pytest.mark.parametrize("proof", [None, "", 7, True, "ä" * 64, "\ud800", PROOF[:-1], PROOF.upper(), [PROOF]])
def test_a_proof_that_is_none_is_refused(proof: object) -> None:
    assert read_hello(TOKEN, replace(SAID, fields={"proof": proof})) is None


def test_the_whole_handshake_convinces_both() -> None:
    nonce = read_challenge(TOKEN, PROOF, ASKED)
    assert nonce == "theirs"
    assert answered(TOKEN, PROOF, "theirs", answer(TOKEN, PROOF, nonce))


def test_an_answer_to_one_challenge_is_none_to_the_next() -> None:
    recorded = answer(TOKEN, PROOF, "theirs")
    assert not answered(TOKEN, PROOF, "another", recorded)


def test_a_challenge_for_one_hello_is_none_for_the_next() -> None:
    again = hello(TOKEN, {"node": 3, "host": "b"}, "instance", "another nonce")
    assert read_challenge(TOKEN, again.fields["proof"], ASKED) is None


def test_a_proof_handed_back_is_no_answer() -> None:
    assert not answered(TOKEN, PROOF, "theirs", replace(ASKED, kind="answer"))
    assert not answered(TOKEN, PROOF, "theirs", Frame("answer", {"proof": PROOF}))
    assert read_challenge(TOKEN, PROOF, Frame("challenge", {"nonce": "theirs", "proof": PROOF})) is None


@pytest.mark.parametrize("nonce", [None, 7, ["theirs"]])
def test_a_nonce_that_is_no_text_is_refused(nonce: object) -> None:
    assert read_challenge(TOKEN, PROOF, replace(ASKED, fields={**ASKED.fields, "nonce": nonce})) is None


@pytest.mark.parametrize("node", [-1, True, 1.5, "3", None, 1 << 64])
def test_a_member_without_a_number_is_not_taken(node: object) -> None:
    assert read_hello(TOKEN, hello(TOKEN, {"node": node}, "instance", "nonce")) is None


def test_a_hello_that_would_not_be_taken_is_not_sent() -> None:
    with pytest.raises(AssertionError, match="a hello of"):
        hello(TOKEN, {"node": 1, "x": "x" * 4096}, "instance", "nonce")


def test_the_token_itself_is_in_nothing_that_is_sent_or_shown() -> None:
    token = new_token()
    said = hello(token, {"node": 1}, "instance", "nonce")
    sent = encode(said) + encode(challenge(token, "p", "n")) + encode(answer(token, "p", "n"))
    assert token not in sent
    assert token.hex().encode() not in sent
    assert token.hex() not in repr(Address("10.0.0.7", 4711, token))
    assert str(token) not in repr(Address("10.0.0.7", 4711, token))


@pytest.mark.parametrize("host", ["10.0.0.7", "::1", "fe80::7%eth0"])
def test_an_address_survives_a_file(host: str) -> None:
    address = Address(host, 4711, new_token())
    assert Address.parse(json.loads(json.dumps(address.encode()))) == address


@pytest.mark.parametrize(
    "change",
    [
        {"host": "leader"},
        {"host": 7},
        {"host": ""},
        {"port": 0},
        {"port": 65536},
        {"port": "1"},
        {"token": "ab"},
        {"token": "Z" * 64},
        {"token": None},
    ],
)
def test_what_is_no_address_is_none(change: dict[str, object]) -> None:
    assert Address.parse({**Address("10.0.0.7", 4711, TOKEN).encode(), **change}) is None
    assert Address.parse([]) is None
