"""Codes that protect a message on a noisy channel: how words are made, and how they are decoded."""
