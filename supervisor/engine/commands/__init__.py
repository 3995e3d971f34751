"""The commands that run nothing: one file each."""
