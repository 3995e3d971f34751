"""The one loop: what is seen becomes a situation, the policy chooses a move, the loop makes it.

running      from a job file to an exit code: who leads, who follows; machine: what this one has
leading      from the lease to the exit code
opening      is this run directory ours to go on with, and under which terms
place        this machine's place among the nodes

loop         looks, asks, acts, and writes the journal
seeing       beats, slots and memories made into a situation
wishes       what somebody outside wants
course       what follows an attempt; ending, verdicts: why it ended, and how one leaves
origin       where the next attempt goes on from; resuming: chosen over board and disk
checkpoints  what is due and on its way; commits: made on a thread; assembly: of which files
disk         small reads and writes that may hang; tenure: the lease renewed
vigil        who stands still, who is always slow; inquiry: ranks asked what they are at; diverging: losses gone wrong

node         one machine's part: memory (the board), starting, gang (the workers of an attempt), evidence
gpus         of a node, before, during and after an attempt; host_memory: a warning before it ends
team         all nodes; crew: the members as the leader has them; gathering: their parts of a checkpoint
news         what was heard of the members; warnings: what their clouds gave notice of
member       a node that does not lead; joining: its way in; whereabouts, meeting: where its leader is
messages     what the two tell each other; attempt: the order that all nodes get
telling      keeps the process alive that tells people
leaderless   what a member does whose leader is dead

allocation   the scheduler's job; handing_back: its way back into the queue
submitting, sweeping, prefetching, planning, inspecting, stopping: one command each
"""
