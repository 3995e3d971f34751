"""The board: a node's shared memory, through which its workers and its supervisor talk.

The invariant between ranks, which everything rests on
-------------------------------------------------------
Snapshots are taken when a step is settled, at the beginning of the next one. Let
``n(r)`` be the newest step whose snapshot is whole on rank ``r``.

1. *Skew.* A rank begins to write the snapshot of step ``s + 1`` only after every rank has
   whole the snapshot of step ``s``: the gradients of step ``s + 1`` were summed over all
   ranks, and a rank joins that sum only after it has taken the snapshot of step ``s``,
   at the beginning of step ``s + 1``. Hence ``|n(i) - n(j)| <= 1``.
2. *Victim.* A writer overwrites the oldest slot that is neither its newest whole one nor
   the one its reader holds. With three slots one is always left.
3. *Dead branches.* An attempt that goes on from step ``c`` counts what it finds of later
   steps as torn: some rank did not have it. A step counts as whole on every rank only if all
   ranks took it in the same attempt, since a step that is done again may come out differently.
4. *Therefore* the step ``c = min over r of n(r)`` is whole on every rank at all times, a
   rank killed in the middle of a copy included: a rank at ``c + 1`` could only lose ``c``
   by writing ``c + 2``, which rule 1 forbids until every rank is at ``c + 1``.
5. *Reading.* A held slot is never a victim, and a reader compares the slot's header before
   and after it copied the bytes, so that even a broken promise shows as torn, never as a
   checkpoint.

With a snapshot only every k-th step the same holds for the steps that are taken, since all
ranks take the same ones. Where copies overlap the next step (CUDA) a rank joins the sum of
step ``s`` having waited only for its snapshot of step ``s - 2``, so its peers must keep three:
there are five slots, and the three newest are never victims.

This package is imported by both sides and knows neither. It imports no torch.
"""
