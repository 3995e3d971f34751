"""The one loop: what is seen becomes a situation, the policy chooses a move, the loop makes it.

opening   is this run directory ours to go on with, and under which terms
loop      looks, asks, acts, and writes the journal
gang      the workers of one attempt
memory    the board, seen as snapshots
commits   from the board to disk, on a thread
resuming  where an attempt goes on from
"""
