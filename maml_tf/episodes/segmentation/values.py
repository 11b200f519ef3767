"""What the numbers in tiles and label images stand for.

Imports no TensorFlow.
"""

UNLABELLED = 255  # in a label image
# What stands for 1 in a tile: of one byte a band, and of two.
TOP_OF_BYTE, TOP_OF_WORD = 255, 10_000
