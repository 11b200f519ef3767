"""Run directories and checkpoints; below, SavedModels."""
