"""Networks of cells, as architecture search finds them: what a cell is, and what is made of it."""
