"""What people and programs read about a run, folded from its journal.

`fold` makes the history, `figures` what is counted from it, `live` what the
supervisor says right now; `status`, `why` and `watch` say it, and only `watch`
imports more than the standard library.

`notify` is a process that tells people who are elsewhere, and the only one that
writes: `teller` follows the journal, `digest` says when to tell, `messages` in
which words, `notified` how far it has; `alarms` is a dead man's switch, `metering`
puts `metrics` in files and on a `port`. What is told goes through `sending`, a
process of its own each time: `send`, the door to Apprise.
"""
