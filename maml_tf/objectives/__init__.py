"""Losses that tasks are learnt by, and the metrics that results are reported in."""
