"""Update rules of the inner loop: (fast_weights, gradients, slots, step) -> (fast_weights, slots).

All dicts share their keys, and all tensors may have a leading task axis. `slots` is a rule's own
memory from step to step within one task ({} before the first).
"""


def gradient_descent(lr):
    """w - lr g; `lr` is a number or a tensor that broadcasts to every weight."""

    def update(fast_weights, gradients, slots, step):
        del step
        return {name: w - lr * gradients[name] for name, w in fast_weights.items()}, slots

    return update
