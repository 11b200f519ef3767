"""How objects, variables and files are named and written."""
