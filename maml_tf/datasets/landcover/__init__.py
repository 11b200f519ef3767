"""Land cover: tasks are regions of the world."""
