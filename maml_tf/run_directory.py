"""The run directory <logdir>/<experiment string>: replayable flags, checkpoints, metrics.csv, results."""
import csv
import json
import os
import pathlib
import platform

import tensorflow as tf

from maml_tf.errors import UserError

CHECKPOINTS_KEPT = 10  # as the reference


def experiment_string(flags):
    """The reference's name of a run; what it does not know (algorithm, pretraining, seed) is added at the end."""
    parts = [f'cls_{flags.num_classes}.mbs_{flags.meta_batch_size}.ubs_{train_update_batch_size(flags)}'
             f'.numstep{flags.num_updates}.updatelr{train_update_lr(flags)}']
    parts += [f'hidden{flags.num_filters}'] * (flags.num_filters != 64) + ['maxpool'] * flags.max_pool
    parts += ['stopgrad'] * flags.stop_grad + [flags.baseline or '']
    parts += [{'batch_norm': 'batchnorm', 'layer_norm': 'layernorm', 'None': 'nonorm'}[flags.norm]]
    parts += ['' if flags.conv else '.fc', '' if flags.algorithm == 'maml' else f'.{flags.algorithm}']
    if flags.pretrain_iterations and not flags.baseline:
        # The reference gives its pretrained baseline and its MAML the same name, and resumes one from the other.
        parts += ['.pretrain' + (str(flags.pretrain_iterations) if flags.metatrain_iterations else '')]
    parts += [f'.seed{flags.seed}' if flags.seed else '']
    return ''.join(parts)


def train_update_batch_size(flags):
    """Shots in training, where evaluation differs."""
    return flags.update_batch_size if flags.train_update_batch_size == -1 else flags.train_update_batch_size


def train_update_lr(flags):
    """The inner rate in training, where evaluation differs."""
    return flags.update_lr if flags.train_update_lr == -1 else flags.train_update_lr


def write_atomically(path, text):
    """A reader, or a run cut short, finds the old file or the new one, never a part."""
    temporary = path.with_name(f'.{path.name}.new')
    temporary.write_text(text, encoding='utf-8')
    os.replace(temporary, path)


class RunDirectory:
    """Paths and checkpoints of one run.

    Args:
      path: pathlib.Path; made when something is first written.
      trackables: {name: learner, optimizer, ...}, what a checkpoint holds besides the iteration.
    """

    def __init__(self, path, **trackables):
        self.path = pathlib.Path(path)
        self._iteration = tf.Variable(0, dtype=tf.int64, name='iteration', trainable=False)
        self._checkpoint = tf.train.Checkpoint(iteration=self._iteration, **trackables)
        self._manager = None

    def checkpoints(self):
        """{iteration: checkpoint prefix}, ascending."""
        prefixes = sorted((int(index.stem.removeprefix('model-')), str(index.with_suffix('')))
                          for index in self.path.glob('model-*.index'))
        return dict(prefixes)

    def restore(self, iteration=-1):
        """Restores the checkpoint of `iteration` (-1: the latest) and returns its iteration.

        Raises UserError where there is none.
        """
        prefixes = self.checkpoints()
        if not prefixes:
            raise UserError(f'--logdir: no checkpoint in {self.path}. Train first, with the same flags and without '
                            '--train=False')
        iteration = max(prefixes) if iteration == -1 else iteration
        if iteration not in prefixes:
            raise UserError(f'--test_iter={iteration}: {self.path} has checkpoints of iterations '
                            f'{", ".join(map(str, prefixes))}')
        self._checkpoint.restore(prefixes[iteration]).assert_existing_objects_matched()
        return int(self._iteration)

    def save(self, iteration):
        """Writes a checkpoint of everything, and forgets the oldest beyond CHECKPOINTS_KEPT."""
        if self._manager is None:
            self._manager = tf.train.CheckpointManager(self._checkpoint, str(self.path), CHECKPOINTS_KEPT,
                                                       checkpoint_name='model')
        self._iteration.assign(iteration)
        self._manager.save(checkpoint_number=iteration)

    def set_aside(self):
        """Renames an earlier run that is not to be resumed; returns its new path, or None where there is none."""
        if not self.checkpoints():
            return None
        number = 1
        while (old := self.path.with_name(f'{self.path.name}.old{number}')).exists():
            number += 1
        return self.path.rename(old)

    def write_flags(self, text):
        """flags.txt: replay with --flagfile."""
        self.path.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path / 'flags.txt', text)

    def append_metrics(self, row):
        """Adds {column: value} to metrics.csv; the first row decides the columns."""
        path = self.path / 'metrics.csv'
        new = not path.exists()
        with open(path, 'a', newline='', encoding='utf-8') as file:
            writer = csv.DictWriter(file, row)
            if new:
                writer.writeheader()
            writer.writerow(row)

    def metrics(self):
        """The rows of metrics.csv, as {column: text}."""
        path = self.path / 'metrics.csv'
        if not path.exists():
            return []
        with open(path, newline='', encoding='utf-8') as file:
            return list(csv.DictReader(file))

    def forget_metrics_after(self, iteration):
        """Drops rows that a resumed run will write again."""
        rows = self.metrics()
        kept = [row for row in rows if int(row['iteration']) <= iteration]
        if len(kept) < len(rows):
            (self.path / 'metrics.csv').unlink()
            for row in kept:
                self.append_metrics(row)

    def seconds(self):
        """Seconds of training behind the last checkpoint, over all sessions."""
        path = self.path / 'clock.json'
        return json.loads(path.read_text())['training_seconds'] if path.exists() else 0.

    def write_seconds(self, seconds):
        """Notes the seconds of training so far, and on what kind of machine."""
        accelerators = [d.device_type for d in tf.config.list_logical_devices() if d.device_type != 'CPU']
        machine = f'{os.cpu_count()} CPU cores ({platform.machine()})' + ''.join(f', {a}' for a in accelerators)
        write_atomically(self.path / 'clock.json',
                         json.dumps({'training_seconds': round(seconds, 1), 'machine': machine}) + '\n')


def define_flags(flags):
    """Flags of the run directory."""
    flags.DEFINE_string('logdir', '/tmp/data', 'directory for summaries, checkpoints and results')
    flags.DEFINE_bool('log', True, 'False: write no TensorBoard summaries and no metrics.csv')
    flags.DEFINE_bool('resume', True, 'resume training if there is a checkpoint; False: start anew, the earlier run '
                      'is renamed')
    flags.DEFINE_integer('test_iter', -1, 'iteration of the checkpoint to load (-1: the latest)', lower_bound=-1)
    flags.DEFINE_integer('train_update_batch_size', -1, 'update_batch_size of training, to evaluate with another')
    flags.DEFINE_float('train_update_lr', -1, 'update_lr of training, to evaluate with another')
