"""Layers as pure functions of task-stacked tensors, with derivatives of their own."""
