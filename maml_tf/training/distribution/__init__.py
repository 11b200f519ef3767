"""Training spread over devices and over workers."""
