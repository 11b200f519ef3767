"""Maps of a region of one's own."""
