"""One file for each data set, and the table of those that the command line knows."""
