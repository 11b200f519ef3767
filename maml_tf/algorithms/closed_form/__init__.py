"""Learners with an encoder for all tasks and a head that is solved on each support set."""
