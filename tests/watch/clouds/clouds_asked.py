"""A watch over a fake cloud, and what it tells."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from fake_metadata import Fake
from harness import until

from supervisor.policy.notices import News, Notice, Unread, Withdrawn
from supervisor.watch.clouds.asking import Place
from supervisor.watch.clouds.watch import Cloud, CloudWatch
from supervisor.watch.ready import ready


def place(fake: Fake) -> Place:
    return Place("127.0.0.1", fake.port)


@dataclass
class Watched:
    """Everything that a watch has told so far."""

    watch: CloudWatch
    told: list[News] = field(default_factory=list)

    def wait(self, count: int) -> list[News]:
        """Until so much has been told; by the descriptor, as a loop would."""

        def there() -> bool:
            ready([self.watch.fd], 0.05)
            self.told += self.watch.events()
            return len(self.told) >= count

        until(there, f"{count} pieces of news, {self.told} came")
        return self.told

    def notice(self, at: int = -1) -> Notice:
        found = self.told[at]
        assert isinstance(found, Notice)
        return found

    def withdrawn(self, at: int = -1) -> Withdrawn:
        found = self.told[at]
        assert isinstance(found, Withdrawn)
        return found

    def unread(self, at: int = -1) -> Unread:
        found = self.told[at]
        assert isinstance(found, Unread)
        return found


@contextmanager
def watching(*clouds: Cloud, rarely_s: float = 0.05) -> Iterator[Watched]:
    watch = CloudWatch(clouds, rarely_s=rarely_s)
    watch.start()
    try:
        yield Watched(watch)
    finally:
        watch.close()
