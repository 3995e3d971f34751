"""Starting the workers, and making sure that none is left."""
