"""Training steps, compiled loops over them, and their spread over cores and devices."""
