"""Tasks whose labels are images: every pixel has a class."""
