"""What people and programs read about a run, folded from its journal.

`fold` makes the history, `figures` what is counted from it, `live` what the
supervisor says right now; `status`, `why` and `watch` say it. Nothing here
writes, and only `watch` imports more than the standard library.
"""
