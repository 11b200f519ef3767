"""Land cover: regions of the world as tasks."""
