"""The journal: one JSON object a line, only ever appended to.

Rule 1: what happened to a run is what stands here; everything else is folded from it.
Rule 2: reading never fails over content. A torn line costs that line, and an
event or a field that this release does not know is carried along.
"""

from supervisor.journal.records import EVENTS, JOURNAL, MEMBERS, Record, read, read_from, read_run
from supervisor.journal.writing import Journal

__all__ = ["EVENTS", "JOURNAL", "MEMBERS", "Journal", "Record", "read", "read_from", "read_run"]
