"""The rows of the table of data sources, by kind."""
