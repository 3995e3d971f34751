"""Several nodes: the leader's side, a member's side, and what the two tell each other."""
