"""Meta-reinforcement learning: policies that adapt to a task by their own trajectories."""
