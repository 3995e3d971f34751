"""The ranks of one node: started, watched, asked, ended, and what they left behind."""
