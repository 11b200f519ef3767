"""Tasks of regression that are computed: families of functions, and what shifts them."""
