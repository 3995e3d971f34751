"""Who is who: both ends prove the token, and neither ever sends it.

    member   hello      proof of what it says about itself, its nonce included
    leader   challenge  its own nonce, and a proof over both
    member   answer     a proof over both
    leader   welcome, or refused with a reason

Rule 1: whoever has not sent a right hello is not answered; a wrong one is not even read.
Rule 2: a recorded hello gains nothing, since only the token's owner can answer the challenge.
Rule 3: these first three frames are the same in every version, so that two versions can tell
each other apart; a refusal comes last, where both ends are proved and it can be believed.

Each proof is HMAC-SHA256 with the token as its key. What is signed begins with the frame's
kind, so that no proof can be handed back as another; the later ones sign the first, and thereby
all that it covers.

Source:
    RFC 2104; challenge and response in both directions as in RFC 5802 (SCRAM), without its passwords.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from supervisor.link.wire import UNPROVED_LIMIT, VERSION, Frame
from supervisor.owner import whole

#: Kinds of frames that the link itself speaks; nobody else may send them.
OWN_KINDS = frozenset({"hello", "challenge", "answer", "welcome", "refused", "beat"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What a member said about itself, proved.

    Attributes:
        version: of what it speaks.
        node: its number.
        instance: of its process, drawn at its start.
        fields: all that it told, its number included.
        proof: of all of it, and of its nonce.
    """

    version: int
    node: int
    instance: str
    fields: Mapping[str, Any]
    proof: str


def hello(token: bytes, fields: Mapping[str, Any], instance: str, nonce: str, version: int = VERSION) -> Frame:
    """A member's first frame.

    Its text is a body: the leader checks the bytes before it reads what they mean.

    Args:
        token: to be proved.
        fields: what the leader is told; `node` is among it.
        instance: of this process.
        nonce: never used before.
        version: that this member speaks.
    """
    said = {"version": version, "instance": instance, "nonce": nonce, "fields": dict(fields)}
    body = json.dumps(said, separators=(",", ":")).encode()
    assert len(body) <= UNPROVED_LIMIT, f"a hello of {len(body)} bytes: at most {UNPROVED_LIMIT} are taken"
    return Frame("hello", {"proof": _proof(token, "hello", body)}, body)


def read_hello(token: bytes, frame: Frame) -> Hello | None:
    """What a member says about itself; None unless it proves the token."""
    proof = frame.fields.get("proof")
    if frame.kind != "hello" or not _proved(proof, token, "hello", frame.body):
        return None
    try:
        said = json.loads(frame.body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    version, instance, fields = whole(said.get("version")), said.get("instance"), said.get("fields")
    if version is None or not isinstance(instance, str) or not isinstance(fields, dict):
        return None
    node = whole(fields.get("node"))
    if node is None:
        return None
    return Hello(version=version, node=node, instance=instance, fields=fields, proof=str(proof))


def challenge(token: bytes, hello_proof: str, nonce: str) -> Frame:
    """The leader's answer to a hello."""
    return Frame("challenge", {"nonce": nonce, "proof": _proof(token, "challenge", hello_proof, nonce)})


def read_challenge(token: bytes, hello_proof: str, frame: Frame) -> str | None:
    """The leader's nonce; None unless it proves the token for this very hello."""
    nonce = frame.fields.get("nonce")
    if frame.kind != "challenge" or not isinstance(nonce, str):
        return None
    return nonce if _proved(frame.fields.get("proof"), token, "challenge", hello_proof, nonce) else None


def answer(token: bytes, hello_proof: str, nonce: str) -> Frame:
    """A member's answer to a challenge."""
    return Frame("answer", {"proof": _proof(token, "answer", hello_proof, nonce)})


def answered(token: bytes, hello_proof: str, nonce: str, frame: Frame) -> bool:
    """Whether a frame answers the challenge with this nonce."""
    return frame.kind == "answer" and _proved(frame.fields.get("proof"), token, "answer", hello_proof, nonce)


def _proof(token: bytes, *said: str | bytes) -> str:
    parts = [part if isinstance(part, bytes) else part.encode(errors="replace") for part in said]
    return hmac.new(token, b"\0".join(parts), "sha256").hexdigest()


def _proved(proof: Any, token: bytes, *said: str | bytes) -> bool:
    # Bytes, since compare_digest takes no text that is not ASCII; it takes as long for a near miss as for a far one.
    return isinstance(proof, str) and hmac.compare_digest(proof.encode(errors="replace"), _proof(token, *said).encode())
