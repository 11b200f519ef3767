"""Learning to learn on TensorFlow and Keras: MAML and its relatives, vectorised over tasks.

Importing the package defines no absl flag; `run_maml.py` asks each module for its own.
"""
