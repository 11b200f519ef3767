"""Learners that compare embeddings."""
