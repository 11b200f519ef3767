"""Encoders of images, what they draw at random in training, and their flags by name."""
