"""The PyTorch side of the policies benchmark: MAML with TRPO, as PyTorch's users write it,
uncompiled: a loop over tasks, and autograd for every product with the Fisher matrix.

    python tests/benchmarks/torch_rl.py SIZES_AS_JSON

Of a task all rollouts are stepped together: 2-D navigation by PyTorch, the half-cheetah by
gymnasium's vector of environments. policies.py starts it, maybe with another Python: PyTorch and
NumPy suffice, and gymnasium with MuJoCo for the half-cheetah.
"""

import json
import math
import sys

import numpy as np
import torch
from torch.distributions import Independent, Normal, kl_divergence
from workloads import serve

LARGEST_STEP, ARRIVED = 0.1, 0.01
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


class Navigation:
    """Rollouts of 2-D navigation, stepped together."""

    horizon, action_size = 100, 2

    def draw_tasks(self, tasks):
        return torch.rand(tasks, 2) - 0.5

    def start(self, goal, rollouts, begin):
        self._goal, self._position = goal, torch.zeros(rollouts, 2)
        self._there = torch.ones(rollouts)
        return self._position

    def step(self, action):
        """Returns observations, rewards and whether the step counts, each [rollouts, ...]."""
        there, moved = self._there, self._position + LARGEST_STEP * action.clamp(-1, 1)
        self._position = torch.where(there[:, None] > 0, moved, self._position)
        gap = self._position - self._goal
        self._there = there * (gap.abs() >= ARRIVED).any(-1)
        return self._position, -there * gap.norm(dim=-1), there


class HalfCheetah:
    """Rollouts of the half-cheetah's directions, by gymnasium.

    rollouts: of a task.
    """

    horizon, action_size = 200, 6

    def __init__(self, rollouts):
        import gymnasium

        module = 'maml_tf.rl.environments.registration'
        self._envs = gymnasium.make_vec(f'{module}:maml_tf/HalfCheetahDir-v0', rollouts, 'sync')

    def draw_tasks(self, tasks):
        return 2.0 * torch.randint(0, 2, (tasks, 1)) - 1.0

    def start(self, direction, rollouts, begin):
        """begin: positions and velocities [rollouts, ...], else they are drawn."""
        seen, _ = self._envs.reset(options={'task': float(direction)})
        if begin is not None:
            for env, qpos, qvel in zip(self._envs.envs, *begin):
                env.unwrapped.set_state(qpos, qvel)
            seen = np.stack([env.unwrapped.observation() for env in self._envs.envs])
        return torch.from_numpy(seen).float()

    def step(self, action):
        seen, reward, *_ = self._envs.step(action.numpy())
        reward = torch.from_numpy(reward).float()
        return torch.from_numpy(seen).float(), reward, torch.ones_like(reward)


@torch.no_grad()
def rollouts(weights, world, task, noise, begin=None):
    """Observations, actions, rewards and counts, each [horizon, rollouts, ...].

    noise: [horizon, rollouts, action_size]. begin: as of the world's `start`.
    """
    observation, seen = world.start(task, noise.shape[1], begin), []
    for drawn in noise:
        policy = distribution(weights, observation).base_dist
        action = policy.mean + policy.stddev * drawn
        after, reward, there = world.step(action)
        seen.append((observation, action, reward, there))
        observation = after
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
        torch.arange(len(rewards), dtype=rewards.dtype)[:, None, None].expand_as(rewards[..., None])
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


def iteration(weights, world, tasks, noise, rate, begin=None):
    """One iteration; noise: [2, horizon, tasks, rollouts, action_size], of the rollouts before and
    after the inner step. begin: of the first iteration, [2][2] arrays [tasks, rollouts, ...]."""
    support, query, returns = [], [], [[], []]
    begin_of = lambda which, i: begin and [part[i] for part in begin[which]]
    for i, task in enumerate(tasks):
        before = rollouts(weights, world, task, noise[0][:, i], begin_of(0, i))
        support.append(samples(before))
        leaves = [w.detach().requires_grad_() for w in weights]
        fast = [w.detach() for w in adapted(leaves, support[-1], rate, create_graph=False)]
        after = rollouts(fast, world, task, noise[1][:, i], begin_of(1, i))
        query.append(samples(after))
        for which, trajectories in enumerate((before, after)):
            returns[which].append(trajectories[2].sum(0).mean().item())
    weights, report = improved(weights, support, query, rate)
    pre, post = map(np.mean, returns)
    return weights, report | {'pre_return': float(pre), 'post_return': float(post)}


class Side:
    """See workloads.serve; the first iteration is on given weights, tasks, noise and starts."""

    def __init__(self, datasource, tasks, rollouts, rate, first):
        given = np.load(first)
        self._weights = [torch.from_numpy(given[f'weight{i}']) for i in range(7)]
        self._first = [torch.from_numpy(given[name]) for name in ('tasks', 'noise')]
        starts = [f'{name}{i}' for i in range(2) for name in ('qpos', 'qvel')]
        begin = [given[name] for name in starts if name in given]
        self._begin = begin and (begin[:2], begin[2:])
        self._world = Navigation() if datasource == 'navigation2d' else HalfCheetah(rollouts)
        self._tasks, self._rollouts, self._rate = tasks, rollouts, rate

    def first_step(self):
        self._weights, report = iteration(
            self._weights, self._world, *self._first, self._rate, self._begin
        )
        return report

    def run(self, first, count):
        world = self._world
        for _ in range(count):
            tasks = world.draw_tasks(self._tasks)
            sizes = self._tasks, self._rollouts, world.action_size
            noise = torch.randn(2, world.horizon, *sizes)
            self._weights, _ = iteration(self._weights, world, tasks, noise, self._rate)


if __name__ == '__main__':
    serve(lambda: Side(**json.loads(sys.argv[1])))
