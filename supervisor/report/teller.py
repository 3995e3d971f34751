"""Who has been told what of a run: the journal followed, and each address at its own pace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from supervisor.journal import Record
from supervisor.report.digest import News, Pace, after_failing, after_telling, due
from supervisor.report.fold import RunHistory, fold
from supervisor.report.messages import Place, interruption, message, news_of
from supervisor.report.notified import Told, key
from supervisor.report.settings import Settings

#: The pause between two tries when the process is about to end [s].
LAST_RETRY_S = 3.0


@dataclass(slots=True)
class Address:
    """One address of Apprise's.

    Attributes:
        label: what may be shown of it.
        url: itself.
        records: how many of the journal's records it has been told of.
        pace: how often it was told lately.
        asked: how many records the message under way tells of, and its news; None if there is none.
        last_word: whether it was told what the journal does not hold.
        failed: when it last could not be told [unix s].
    """

    label: str
    url: str
    records: int = 0
    pace: Pace = field(default_factory=Pace)
    asked: tuple[int, list[News]] | None = None
    last_word: bool = False
    failed: float | None = None


class Teller:
    """Follows the news and says what is to be told; it sends nothing itself.

    Attributes:
        history: of the run, as far as it was read.
        addresses: all of them.
        last_word: news that the journal does not hold, since its writer is gone.
    """

    def __init__(self, settings: Settings, records: Iterable[Record], told: Mapping[str, Told]) -> None:
        """Take up where the last process left off.

        Args:
            settings: of the run.
            records: the journal as it is now.
            told: what `notified.json` held. An address that it does not know is told of this stay.
        """
        self.history = RunHistory()
        self.last_word: News | None = None
        self._settings = settings
        self._count = 0
        self._start = 0  # records before this stay
        self._news: list[tuple[int, News]] = []
        self.addresses = [Address(label, url) for label, url in settings.urls]
        self.take(records)
        for one in self.addresses:
            known = told.get(key(one.url), Told(self._start, Pace()))
            one.records, one.pace = min(known.records, self._count), known.pace

    def take(self, records: Iterable[Record]) -> None:
        """Take in what has been written."""
        for record in records:
            if record.event == "run_started":
                self._start = self._count
            self._count += 1
            news = news_of(record, self.history)
            if news is not None:
                self._news.append((self._count, news))
            fold([record], self.history)

    def end(self, now: float) -> None:
        """The supervisor is gone, and nothing will be written any more."""
        self.last_word = self.last_word or interruption(self.history, now)

    def pending(self, address: Address) -> list[News]:
        """What an address has not been told."""
        news = [one for at, one in self._news if at > address.records]
        return news if self.last_word is None or address.last_word else [*news, self.last_word]

    def ask(self, now: float, step: Callable[[], int | None], *, ending: bool = False) -> list[dict[str, Any]]:
        """What is to be told now, as `supervisor.report.send` takes it; it counts as under way.

        Args:
            now: the wall clock [unix s].
            step: the newest settled one, looked up if there is something to tell.
            ending: this process is about to end.
        """
        asked = []
        for number, address in enumerate(self.addresses):
            news = self.pending(address)
            if address.asked is not None or not due(news, address.pace, now, last_chance=ending):
                continue
            if ending and address.failed is not None and 0 <= now - address.failed < LAST_RETRY_S:
                continue
            address.asked = (self._count, news)
            made = message(news, self._place(step()))
            asked.append(
                {"id": f"u{number}", "url": address.url, "title": made.title, "body": made.body, "kind": made.kind}
            )
        return asked

    def _place(self, step: int | None) -> Place:
        settings = self._settings
        return Place(settings.name, settings.host, settings.run_dir, step, self.history.max_steps)

    def answer(self, number: int, now: float, *, told: bool) -> None:
        """What became of the message to an address."""
        address = self.addresses[number]
        assert address.asked is not None
        (records, news), address.asked = address.asked, None
        if not told:
            address.pace, address.failed = after_failing(address.pace, now), now
            return
        address.records, address.pace = records, after_telling(news, address.pace, now)
        address.last_word = self.last_word in news
        least = min(one.records for one in self.addresses)
        self._news = [(at, one) for at, one in self._news if at > least]

    def told(self) -> dict[str, Told]:
        """How far everybody has been told, for `notified.json`."""
        return {key(one.url): Told(one.records, one.pace) for one in self.addresses}

    @property
    def waits(self) -> bool:
        """Whether anybody is to be told something still."""
        return any(one.asked is not None or self.pending(one) for one in self.addresses)
