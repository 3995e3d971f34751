"""What clouds tell their machines of an end that is near, read from their metadata services.

A file per cloud: pure readings of an answer, and a class that asks. `asking.py` is the door, `finding.py`
tells which cloud this may be, `watch.py` asks on threads, so that nothing here can hold up anybody.
"""
