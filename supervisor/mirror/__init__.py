"""A copy of a run's checkpoints that outlives the machine, in an object store or another directory.

keeper      the process that does all of it, one for each stay; the supervisor itself never waits for a store
copy        what it keeps: what is there, what a new machine needs first, what is to be sent
messages    what the two tell each other
store       the door to obstore; refusals: what it raises; unfinished: what a killed writer leaves in a directory
layout      which objects there are, and what is in them
holding     who owns the copy: the lease, by conditional writes
sending     files into the store, commit object last; fetching: and back, verified; cleaning: what may go

Rule 1: a checkpoint exists here only by its commit object, which is written last and never again.
Rule 2: content lies under the name of its own digest, so it is sent once, and believed only when it matches.
Rule 3: only who holds the lease writes or deletes.
"""
