"""Clusters: which processes train together, as TF_CONFIG or Slurm says."""

import json
import os
from typing import NamedTuple

import tensorflow as tf

from maml_tf.errors import UserError

VARIABLE = 'TF_CONFIG'
EXAMPLE = (
    '{"cluster": {"worker": ["host1:2222", "host2:2222"]}, "task": {"type": "worker", "index": 0}}'
)
# What Slurm sets in each task of a job step; SlurmClusterResolver reads the same.
OF_SLURM = ('PROCID', 'STEP_NUM_TASKS', 'STEP_NODELIST', 'STEP_TASKS_PER_NODE')
ROLES = ('chief', 'worker')  # in TensorFlow's order


class Cluster(NamedTuple):
    """The workers that train together, and which of them this process is.

    addresses: {role: host:port of each}; the first of all is the chief.
    role, index: of this process.
    """

    addresses: dict[str, list[str]]
    role: str
    index: int

    @property
    def number(self) -> int:
        """Returns this worker's number among all; the chief's is 0."""
        chiefs = len(self.addresses.get('chief', ()))
        return self.index + (chiefs if self.role == 'worker' else 0)

    @property
    def workers(self) -> list[str]:
        """Returns the addresses of all, the chief's first."""
        return [address for role in ROLES for address in self.addresses.get(role, ())]

    def resolver(self) -> tf.distribute.cluster_resolver.ClusterResolver:
        """Returns what a tf.distribute strategy is made of: these addresses, and the GPUs that this
        process sees."""
        return tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec(self.addresses),
            task_type=self.role,
            task_id=self.index,
            num_accelerators={'GPU': len(tf.config.get_visible_devices('GPU'))},
            rpc_layer='grpc',
        )


def find() -> Cluster | None:
    """Returns the cluster of TF_CONFIG, else that of a Slurm job step; None where there is none.

    Raises: UserError for a cluster that cannot be understood, or has other roles than chief and
      worker.
    """
    if os.environ.get(VARIABLE):
        return _of_tf_config(os.environ[VARIABLE])
    if all(f'SLURM_{name}' in os.environ for name in OF_SLURM):
        return _of_slurm()
    return None


def check_alone(strategy: str) -> None:
    """Raises UserError where TF_CONFIG names several workers that another strategy trains apart."""
    if not os.environ.get(VARIABLE):
        return
    count = len(_of_tf_config(os.environ[VARIABLE]).workers)
    if count > 1:
        raise UserError(
            f'--strategy={strategy}: would train each of the {count} workers of {VARIABLE} alone, '
            f'all into one run directory; --strategy=multi_worker trains them together, and '
            f'without {VARIABLE} there is one'
        )


def _of_tf_config(text: str) -> Cluster:
    try:
        config = json.loads(text)
        addresses, task = config.get('cluster') or {}, config.get('task') or {}
        role, index = task.get('type', 'worker'), int(task.get('index', 0))
        lists = all(isinstance(one, list) for one in addresses.values())
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f'{VARIABLE}: is no cluster ({error}); it looks like {EXAMPLE}') from error
    if not lists or not all(isinstance(one, str) for some in addresses.values() for one in some):
        raise UserError(f'{VARIABLE}: a cluster lists addresses; it looks like {EXAMPLE}')
    for name in (*addresses, role):
        if name not in ROLES:
            raise UserError(
                f'{VARIABLE}: has the role {name!r}, and all train alike here: chief and worker, '
                f'as in {EXAMPLE}'
            )
    if not 0 <= index < len(addresses.get(role, ())):
        raise UserError(
            f'{VARIABLE}: this is {role} {index}, and the cluster has '
            f'{len(addresses.get(role, ()))} of the role {role!r}; it looks like {EXAMPLE}'
        )
    workers = [address for some in addresses.values() for address in some]
    for address in workers:
        if not address.rpartition(':')[2].isdecimal() or workers.count(address) > 1:
            raise UserError(
                f'{VARIABLE}: {address!r} is not host:port, or not of one worker alone; it looks '
                f'like {EXAMPLE}'
            )
    return Cluster(addresses, role, index)


def _of_slurm() -> Cluster:
    try:
        # The resolver gives addresses to as many tasks of a node as it believes to have GPUs, so it
        # is told of one for each. Which GPUs a task sees is Slurm's matter (--gpus-per-task).
        tasks = int(os.environ['SLURM_STEP_NUM_TASKS'])
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            gpus_per_node=tasks, gpus_per_task=1, auto_set_gpu=False
        )
        addresses = resolver.cluster_spec().as_dict()
        role, index = resolver.get_task_info()
    except (ValueError, RuntimeError) as error:
        raise UserError(
            f"Slurm's variables: name no cluster ({error}); set {VARIABLE} to say it yourself"
        ) from error
    cluster = Cluster(addresses, role, index)
    # The resolver sorts the names of the nodes, where Slurm counts their numbers: n10 before n9.
    node = os.environ.get('SLURMD_NODENAME')
    found = cluster.workers[cluster.number].rpartition(':')[0]
    if node and node != found:
        raise UserError(
            f"Slurm's variables: task {index} is on {node}, and TensorFlow expects it on {found}; "
            f'set {VARIABLE} to say where each worker is'
        )
    return cluster
