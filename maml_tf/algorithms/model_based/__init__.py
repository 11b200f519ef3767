"""Learners that read a support set into a memory, a context or a hidden state, by a network."""
