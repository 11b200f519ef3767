"""Networks whose weights may differ by task, encoders that all tasks share, and any Keras model."""
