"""The programs: what a command line says, built and run."""
