"""Scores on many tasks, and the tables and pictures made of them."""
