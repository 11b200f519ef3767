"""The PyTorch side of the policies benchmark: MAML with TRPO on 2-D navigation, as PyTorch's users
write it, uncompiled: a loop over tasks, and autograd for every product with the Fisher matrix.

    python tests/benchmarks/torch_rl.py SIZES_AS_JSON

Of a task all rollouts are stepped together. policies.py starts it, maybe with another Python:
PyTorch and NumPy suffice.
"""

import json
import math
import sys

import numpy as np
import torch
from torch.distributions import Independent, Normal, kl_divergence
from workloads import serve

HORIZON, LARGEST_STEP, ARRIVED = 100, 0.1, 0.01
DISCOUNT, RIDGE = 0.99, 1e-5
MAX_KL, DAMPING, ITERATIONS, SHRINK, TRIES = 0.01, 1e-5, 10, 0.8, 15


def distribution(weights, observations):
    """The policy of [w1, b1, w2, b2, w3, b3, log_std]."""
    *layers, log_std = weights
    x = observations
    for number in range(0, len(layers), 2):
        x = x @ layers[number] + layers[number + 1]
        x = torch.relu(x) if number + 2 < len(layers) else x
    return Independent(Normal(x, log_std.clamp(min=math.log(1e-6)).exp().expand_as(x)), 1)


@torch.no_grad()
def rollouts(weights, goal, noise):
    """Observations, actions, rewards and counts, each [horizon, rollouts, ...], and the returns.

    noise: [horizon, rollouts, 2].
    """
    position = torch.zeros_like(noise[0])
    there = torch.ones_like(position[:, 0])
    seen = []
    for drawn in noise:
        policy = distribution(weights, position).base_dist
        action = policy.mean + policy.stddev * drawn
        moved = position + LARGEST_STEP * action.clamp(-1, 1)
        moved = torch.where(there[:, None] > 0, moved, position)
        gap = moved - goal
        seen.append((position, action, -there * gap.norm(dim=-1), there))
        there = there * (gap.abs() >= ARRIVED).any(-1)
        position = moved
    observations, actions, rewards, counts = (torch.stack(part) for part in zip(*seen))
    return observations, actions, rewards, counts


@torch.no_grad()
def samples(trajectories):
    """Observations, actions and standardised advantages of the steps that count, in one row."""
    observations, actions, rewards, counts = trajectories
    returns, total = [], torch.zeros_like(rewards[0])
    for reward in rewards.flip(0):
        total = reward + DISCOUNT * total
        returns.append(total)
    returns = torch.stack(returns[::-1])
    t = (
        torch.arange(HORIZON, dtype=rewards.dtype)[:, None, None].expand_as(rewards[..., None])
        / 100
    )
    clipped = observations.clamp(-10, 10)
    parts = [clipped, clipped**2, t, t**2, t**3, torch.ones_like(t)]
    there = counts > 0
    x, y = torch.cat(parts, -1)[there].double(), returns[there].double()
    gram = x.T @ x + RIDGE * torch.eye(x.shape[1], dtype=x.dtype)
    values = x @ torch.linalg.solve(gram, x.T @ y)
    # With lambda = 1 the advantage is the return less the baseline.
    advantages = returns[there] - values.to(returns.dtype)
    advantages -= advantages.mean()
    advantages /= advantages.std(correction=0) + 1e-8
    return observations[there], actions[there], advantages


def adapted(weights, batch, rate, create_graph=True):
    """The weights after one step of REINFORCE."""
    observations, actions, advantages = batch
    loss = -(distribution(weights, observations).log_prob(actions) * advantages).mean()
    gradients = torch.autograd.grad(loss, weights, create_graph=create_graph)
    return [w - rate * g for w, g in zip(weights, gradients)]


def improved(weights, support, query, rate):
    """One step of TRPO on the batches of each task: (new weights, what is compared)."""
    weights = [w.detach().requires_grad_() for w in weights]

    def policies(weights, create_graph):
        return [
            distribution(adapted(weights, before, rate, create_graph), after[0])
            for before, after in zip(support, query)
        ]

    detached = lambda p: Independent(Normal(p.mean.detach(), p.stddev.detach()), 1)
    now = policies(weights, create_graph=True)
    old = [detached(policy) for policy in now]

    def surrogate(policies):
        terms = [
            ((new.log_prob(a) - before.log_prob(a)).exp() * advantages).mean()
            for new, before, (_, a, advantages) in zip(policies, old, query)
        ]
        return torch.stack(terms).mean()

    def divergence(policies):
        return torch.stack(
            [kl_divergence(before, new).mean() for new, before in zip(policies, old)]
        ).mean()

    flat = lambda tensors: torch.cat([x.reshape(-1) for x in tensors])
    gain = surrogate(now)
    gradient = flat(torch.autograd.grad(gain, weights, retain_graph=True)).detach()
    slope = flat(torch.autograd.grad(divergence(now), weights, create_graph=True))

    def product(direction):
        along = torch.autograd.grad(slope @ direction, weights, retain_graph=True)
        return flat(along).detach() + DAMPING * direction

    solution, residual = torch.zeros_like(gradient), gradient.clone()
    direction, square = gradient.clone(), gradient @ gradient
    for _ in range(ITERATIONS):
        along = product(direction)
        length = square / (direction @ along)
        solution, residual = solution + length * direction, residual - length * along
        new_square = residual @ residual
        direction, square = residual + new_square / square * direction, new_square
    step = (2 * MAX_KL / (solution @ product(solution))).sqrt() * solution
    report = {'gradient_norm': gradient.norm().item(), 'kl': 0.0, 'surrogate': gain.item()}
    start = flat(weights).detach()
    sizes = [w.numel() for w in weights]
    for length in SHRINK ** np.arange(TRIES):
        moved = [
            part.reshape(w.shape).requires_grad_()
            for part, w in zip((start + float(length) * step).split(sizes), weights)
        ]
        tried = [detached(policy) for policy in policies(moved, create_graph=False)]
        value, kl = surrogate(tried).item(), divergence(tried).item()
        if value > gain.item() and kl <= MAX_KL:
            report |= {'kl': kl, 'surrogate': value}
            return [w.detach() for w in moved], report
    return weights, report


def iteration(weights, goals, noise, rate):
    """One iteration; noise: [2, horizon, tasks, rollouts, 2], of the rollouts before and after the
    inner step."""
    support, query, returns = [], [], [[], []]
    for task, goal in enumerate(goals):
        before = rollouts(weights, goal, noise[0][:, task])
        support.append(samples(before))
        leaves = [w.detach().requires_grad_() for w in weights]
        fast = [w.detach() for w in adapted(leaves, support[-1], rate, create_graph=False)]
        after = rollouts(fast, goal, noise[1][:, task])
        query.append(samples(after))
        for which, trajectories in enumerate((before, after)):
            returns[which].append(trajectories[2].sum(0).mean().item())
    weights, report = improved(weights, support, query, rate)
    pre, post = map(np.mean, returns)
    return weights, report | {'pre_return': float(pre), 'post_return': float(post)}


class Side:
    """See workloads.serve; the first iteration is on given weights, goals and noise."""

    def __init__(self, tasks, rollouts, rate, first):
        given = np.load(first)
        self._weights = [torch.from_numpy(given[f'weight{i}']) for i in range(7)]
        self._first = [torch.from_numpy(given[name]) for name in ('goals', 'noise')]
        self._tasks, self._rollouts, self._rate = tasks, rollouts, rate

    def first_step(self):
        self._weights, report = iteration(self._weights, *self._first, self._rate)
        return report

    def run(self, first, count):
        for _ in range(count):
            goals = torch.rand(self._tasks, 2) - 0.5
            noise = torch.randn(2, HORIZON, self._tasks, self._rollouts, 2)
            self._weights, _ = iteration(self._weights, goals, noise, self._rate)


if __name__ == '__main__':
    serve(lambda: Side(**json.loads(sys.argv[1])))
