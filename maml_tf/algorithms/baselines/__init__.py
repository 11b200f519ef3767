"""What every method has to beat: pretraining on all classes, or on all tasks, or none at all."""
