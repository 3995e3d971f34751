"""The one loop: what is seen becomes a situation, the policy chooses a move, the loop makes it.

running      from a job file to an exit code: who leads, who follows; machine: what this one has
leading      from the lease to the exit code
opening      is this run directory ours to go on with, and under which terms

loop         looks, asks, acts, and writes the journal
seeing       beats, slots and memories made into a situation
wishes       what somebody outside wants
course       what follows an attempt; ending, verdicts: why it ended, and how one leaves
converting   asks a process that knows torch
disk         small reads and writes that may hang; tenure: the lease renewed
telling      keeps the process alive that tells people
world        what the loop is given of the machine; attempt: the order that all nodes get
allocation   the scheduler's job; handing_back: its way back into the queue

ranks/       one node's workers
  node         board and workers of a machine; starting, gang: an attempt's; predecessor: what a killed one left
  logbook      what ranks write, on its way from memory to the run directory
  evidence     what an attempt left behind; inquiry: ranks asked what they are at
  vigil        who stands still, who is always slow
  gpus         before, during and after an attempt; host_memory: a warning before it ends

state/       the training's state
  memory       snapshots on the board; assembly: one of them as the files of a checkpoint
  checkpoints  what is due and on its way; commits: made on a thread
  pace         how often that is, and what it costs; best: the state that was measured best is to be on disk
  retention    what stays there
  beginning    what `start_from` names, taken in; given: a checkpoint that somebody names
  own          what a program writes without us, found and judged
  mirroring    the copy in a store, as the supervisor knows it; keeping: the process that makes it
  origin       where the next attempt goes on from; resuming: chosen over board and disk
  diverging    losses gone wrong, and what they mean for a state to count

members/     several nodes
  place        this machine's place among them; meeting, whereabouts: where their leader is
  team         all nodes; crew: the members as the leader has them; gathering: their parts of a checkpoint
  member       a node that does not lead; joining: its way in; leaderless: what it does whose leader is dead
  messages     what the two tell each other; news, warnings: what was heard of members and of their clouds

commands/    submitting, sweeping, prefetching, planning, inspecting, comparing, exporting, stopping: one each
"""
