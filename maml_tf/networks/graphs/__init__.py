"""Networks of graphs, and the encoders that they and dense networks are."""
