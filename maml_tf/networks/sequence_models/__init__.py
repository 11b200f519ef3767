"""Networks that read a sequence: recurrent cells, causal convolutions, attention."""
