"""The training's state: on the board, on its way to disk, and where an attempt goes on from."""
