"""How well objects are recognised in whole videos: the metrics, who scores, and the picture."""
