"""Commands that draw and compare: what was learnt, and what it was learnt from."""
