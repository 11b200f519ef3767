"""How what does not count is kept out of softmaxes and maxima."""

# Added to a logit, it makes the probability 0, and 0 times its logarithm too, which that of minus
# infinity would not.
NEVER = -1e9
