"""The search for a cell: its space, its children, the surrogate that ranks them, what it leaves."""
