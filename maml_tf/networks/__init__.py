"""Networks whose weights may differ by task, any Keras model as one, and encoders."""
