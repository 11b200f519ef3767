"""Layers as pure functions of task-stacked tensors, with exact derivatives."""
