"""Tokens without which AWS and Alibaba answer no question: fetched, kept for half their life, renewed when refused."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from supervisor.watch.clouds.asking import Answer, Place, Unclear, ask

PATH = "/latest/api/token"
REFUSED = 401


@dataclass(slots=True)
class Tokens:
    """Asks questions that need a token.

    Attributes:
        place: of the service.
        header: name of the header that carries the token; with `-ttl-seconds` the one that asks for it.
        limit_s: for each request [s].
        life_s: asked for [s].
        clock: monotonic.
    """

    place: Place
    header: str
    limit_s: float
    life_s: float
    clock: Callable[[], float]
    _token: str | None = None
    _renew_s: float = 0.0

    def get(self, path: str) -> Answer | Unclear:
        """Ask, with a new token if the service refuses the one at hand."""
        answer = self._get(path)
        if isinstance(answer, Answer) and answer.status == REFUSED:
            self._token = None
            answer = self._get(path)
        return answer

    def _get(self, path: str) -> Answer | Unclear:
        if self._token is None or self.clock() >= self._renew_s:
            life = {f"{self.header}-ttl-seconds": f"{self.life_s:.0f}"}
            answer = ask(self.place, "PUT", PATH, life, limit_s=self.limit_s)
            if isinstance(answer, Unclear):
                return Unclear(f"{answer.reason}, asked for a token")
            if answer.status != 200 or not answer.text.isprintable() or not answer.text:
                return Unclear(f"{self.place} gives no token: {answer.status} {answer.text[:80]!r}")
            self._token, self._renew_s = answer.text, self.clock() + self.life_s / 2
        return ask(self.place, "GET", path, {self.header: self._token}, limit_s=self.limit_s)
