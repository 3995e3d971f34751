"""What happened, and what follows.

Everything here is pure: arguments in, value out. No clock, no file, no process, no
environment, no randomness, no log. Whoever wants to know what the supervisor will do in a
situation reads this package, and can try it in a doctest.
"""
