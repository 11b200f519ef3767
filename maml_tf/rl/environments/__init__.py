"""Families of control tasks, each stepped for all tasks and rollouts at once."""
