"""The run directory <logdir>/<experiment string>: replayable flags, checkpoints, metrics.csv,
results."""

import csv
import io
import json
import os
import pathlib
import platform
import shutil

import tensorflow as tf

from maml_tf.errors import UserError

# Flags of this package that make another run of it, and stand in its name where they are not the
# default.
TRAINING_FLAGS = (
    'class_split',
    'rotations',
    'image_size',
    'ink',
    'resize',
    'train_on',
    'train_query',
    'train_way_from',
    'train_shot_from',
    'leave_to_query',
    'within_groups',
    'dimension',
    'query_contains_support',
    'meta_lr',
    'meta_lr_halve_every',
)
CHECKPOINTS_KEPT = 10  # as the reference
LEARNER, VALUE = (
    'learner',
    '/.ATTRIBUTES/VARIABLE_VALUE',
)  # a variable's key is learner/<name>/.ATTRIBUTES/...


def experiment_string(flags):
    """The reference's name of a run; what it does not know (algorithm, pretraining, seed) is added
    at the end."""
    parts = [
        f'cls_{flags.train_num_classes or flags.num_classes}.mbs_{flags.meta_batch_size}'
        f'.ubs_{train_update_batch_size(flags)}.numstep{flags.num_updates}.updatelr{train_update_lr(flags)}'
    ]
    parts += [f'hidden{flags.num_filters}'] * (flags.num_filters != 64) + [
        'maxpool'
    ] * flags.max_pool
    parts += ['stopgrad'] * flags.stop_grad + ['bfloat16'] * flags.bfloat16 + [flags.baseline or '']
    parts += [{'batch_norm': 'batchnorm', 'layer_norm': 'layernorm', 'None': 'nonorm'}[flags.norm]]
    parts += [
        '' if flags.conv else '.fc',
        '' if flags.algorithm == 'maml' else f'.{flags.algorithm}',
    ]
    if flags.pretrain_iterations and not flags.baseline:
        # The reference gives its pretrained baseline and its MAML the same name, and resumes one
        # from the other.
        parts += [
            '.pretrain' + (str(flags.pretrain_iterations) if flags.metatrain_iterations else '')
        ]
    parts += [f'.seed{flags.seed}' if flags.seed else '']
    parts += [
        f'.{name}_{flags[name].value}'
        for name in (*TRAINING_FLAGS, *private_flags(flags))
        if flags[name].value != flags[name].default
    ]
    return ''.join(parts)


def private_flags(flags):
    """Names of the flags that belong to the algorithm alone."""
    return sorted(name for name in flags if name.startswith(f'{flags.algorithm}_'))


def train_update_batch_size(flags):
    """Shots in training, where evaluation differs."""
    return (
        flags.update_batch_size
        if flags.train_update_batch_size == -1
        else flags.train_update_batch_size
    )


def train_update_lr(flags):
    """The inner rate in training, where evaluation differs."""
    return flags.update_lr if flags.train_update_lr == -1 else flags.train_update_lr


def write_atomically(path, text):
    """A reader, or a run cut short, finds the old file or the new one, never a part."""
    temporary = path.with_name(f'.{path.name}.new')
    temporary.write_text(text, encoding='utf-8')
    os.replace(temporary, path)


def checkpoints(directory):
    """{iteration: checkpoint prefix} of a run directory, ascending. The index is written last, so
    it is whole."""
    return dict(
        sorted(
            (int(index.stem.removeprefix('model-')), str(index.with_suffix('')))
            for index in pathlib.Path(directory).glob('model-*.index')
        )
    )


class RunDirectory:
    """Paths and checkpoints of one run.

    Args:
      path: pathlib.Path; made when something is first written.
      variables: {group: {name: tf.Variable}}, what a checkpoint holds besides the iteration; group
        'learner' is what `--init_from` reads.
    """

    def __init__(self, path, variables):
        self.path = pathlib.Path(path)
        self._iteration = tf.Variable(0, dtype=tf.int64, name='iteration', trainable=False)
        self._checkpoint = tf.train.Checkpoint(
            iteration=self._iteration,
            **{group: tf.train.Checkpoint(**named) for group, named in variables.items()},
        )

    def checkpoints(self):
        """{iteration: checkpoint prefix}, ascending."""
        return checkpoints(self.path)

    def restore(self, iteration=-1):
        """Restores the checkpoint of `iteration` (-1: the latest) and returns its iteration.

        Raises UserError where there is none.
        """
        prefixes = self.checkpoints()
        if not prefixes:
            raise UserError(
                f'--logdir: no checkpoint in {self.path}. Train first, with the same flags and '
                'without '
                '--train=False, or name one with --init_from'
            )
        iteration = max(prefixes) if iteration == -1 else iteration
        if iteration not in prefixes:
            raise UserError(
                f'--test_iter={iteration}: {self.path} has checkpoints of iterations '
                f'{", ".join(map(str, prefixes))}'
            )
        self._checkpoint.read(
            prefixes[iteration]
        ).assert_existing_objects_matched().assert_consumed()
        return int(self._iteration)

    def save(self, iteration):
        """Writes a checkpoint of everything, and forgets the oldest beyond CHECKPOINTS_KEPT."""
        self._write(self.path / f'model-{iteration}', iteration)
        for old in list(self.checkpoints().values())[:-CHECKPOINTS_KEPT]:
            _remove_checkpoint(pathlib.Path(old))

    def save_best(self, iteration, score):
        """Keeps this checkpoint as best/model-<iteration>, in place of the one before, and its
        validation score."""
        self._write(self.path / 'best' / f'model-{iteration}', iteration)
        write_atomically(
            self.path / 'best' / 'score.json',
            json.dumps({'iteration': iteration, 'score': score}) + '\n',
        )
        for number, old in checkpoints(self.path / 'best').items():
            if number != iteration:
                _remove_checkpoint(pathlib.Path(old))

    def best_score(self, iteration):
        """The best validation score up to `iteration`, or None."""
        path = self.path / 'best' / 'score.json'
        best = json.loads(path.read_text('utf-8')) if path.exists() else None
        return best['score'] if best and best['iteration'] <= iteration else None

    def _write(self, prefix, iteration):
        """Under another name first: a checkpoint is two files, and a run may end between them."""
        self._iteration.assign(iteration)
        prefix.parent.mkdir(parents=True, exist_ok=True)
        scratch = prefix.parent / '.writing'
        shutil.rmtree(scratch, ignore_errors=True)
        try:
            self._checkpoint.write(str(scratch / 'model'))
        except tf.errors.OpError as error:
            shutil.rmtree(scratch, ignore_errors=True)
            raise UserError(
                f'{prefix}: the checkpoint could not be written ({error.message.splitlines()[0]}); '
                'the last one stays'
            ) from error
        for ending in ('data-00000-of-00001', 'index'):
            os.replace(scratch / f'model.{ending}', f'{prefix}.{ending}')
        shutil.rmtree(scratch)

    def set_aside(self):
        """Renames an earlier run that is not to be resumed; returns its new path, or None where
        there is none."""
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

    def flags(self):
        """{name: text} of flags.txt, {} where there is none."""
        path = self.path / 'flags.txt'
        lines = path.read_text('utf-8').splitlines() if path.exists() else []
        return dict(line.removeprefix('--').split('=', 1) for line in lines)

    def append_metrics(self, row):
        """Adds {column: value} to metrics.csv; the first row decides the columns."""
        path = self.path / 'metrics.csv'
        _append(path, _csv_lines([row], header=not path.exists()))

    def metrics(self, up_to=None):
        """The rows of metrics.csv, as {column: text}; up_to: those of iterations to this one."""
        path = self.path / 'metrics.csv'
        if not path.exists():
            return []
        # A run that was killed may leave half a row: only lines with an end count.
        *whole, _ = path.read_text('utf-8').split('\n')
        rows = list(csv.DictReader(whole))
        return [row for row in rows if up_to is None or int(row['iteration']) <= up_to]

    def forget_metrics_after(self, iteration):
        """Drops rows that a resumed run will write again."""
        rows = self.metrics(iteration)
        if rows:
            write_atomically(self.path / 'metrics.csv', _csv_lines(rows, header=True))
        else:
            (self.path / 'metrics.csv').unlink(missing_ok=True)

    def seconds(self):
        """Seconds of training behind the last checkpoint, over all sessions."""
        path = self.path / 'clock.json'
        return json.loads(path.read_text('utf-8'))['training_seconds'] if path.exists() else 0.0

    def write_seconds(self, seconds):
        """Notes the seconds of training so far, and on what kind of machine."""
        accelerators = [
            d.device_type for d in tf.config.list_logical_devices() if d.device_type != 'CPU'
        ]
        machine = ', '.join([f'{os.cpu_count()} CPU cores ({platform.machine()})', *accelerators])
        write_atomically(
            self.path / 'clock.json',
            json.dumps({'training_seconds': round(seconds, 1), 'machine': machine}) + '\n',
        )


def _csv_lines(rows, header):
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator='\n')
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _append(path, text):
    with open(path, 'a', encoding='utf-8') as file:
        file.write(text)


def _remove_checkpoint(prefix):
    """The index first: without it the rest is no checkpoint."""
    for ending in ('index', 'data-00000-of-00001'):
        pathlib.Path(f'{prefix}.{ending}').unlink(missing_ok=True)


def define_flags(flags):
    """Flags of the run directory."""
    flags.DEFINE_string('logdir', '/tmp/data', 'directory for summaries, checkpoints and results')
    flags.DEFINE_bool('log', True, 'False: write no TensorBoard summaries and no metrics.csv')
    flags.DEFINE_bool(
        'resume',
        True,
        'resume training if there is a checkpoint; False: start anew, the earlier run is renamed',
    )
    flags.DEFINE_integer(
        'test_iter', -1, 'iteration of the checkpoint to load (-1: the latest)', lower_bound=-1
    )
    flags.DEFINE_string(
        'init_from',
        None,
        'start from, or with --train=False evaluate, the weights of this '
        'checkpoint: a run directory, a checkpoint prefix, or a TF1 checkpoint of the reference',
    )
    flags.DEFINE_integer(
        'train_update_batch_size', -1, 'update_batch_size of training, to evaluate with another'
    )
    flags.DEFINE_float('train_update_lr', -1, 'update_lr of training, to evaluate with another')
