"""Checkpoints on disk: written whole or not at all, believed only when verified.

`parts` says what is to be written, `commit` writes it, `manifest` lists it,
`verify` judges it, `inventory` finds the newest that can be believed, `retain`
lets old ones go, `aside` moves torn ones out of the way, `final` writes the
adapter at the end. Nothing in this room imports torch, numpy or safetensors.
"""
