"""Episodes: sources of few-shot tasks, each task a pure function of (seed, split, index)."""
