"""Run directories, checkpoints and SavedModels."""
