"""One command line, built: data, learner, run directory; trained, evaluated, drawn."""

import contextlib
import functools
import pathlib

import keras
import tensorflow as tf

from maml_tf import algorithms
from maml_tf.commands import command_line
from maml_tf.datasets.sources import SOURCES, check_flags, episode_spec
from maml_tf.episodes import manifest
from maml_tf.errors import UserError
from maml_tf.evaluation import evaluate, pictures, report
from maml_tf.saving import export as exporting
from maml_tf.saving import run_directory as runs
from maml_tf.saving.export_embedding import check_has_embedding, export_embedding
from maml_tf.saving.init_from import load_weights
from maml_tf.saving.variables import named
from maml_tf.training import distribute
from maml_tf.training import train as training

VALIDATION_TASKS = 100


class Experiment:
    """Everything that `flags` describe.

    Raises UserError (or one of the sources' errors) where they describe nothing that can be run.
    """

    def __init__(self, flags):
        for flag in ('export_dir', 'export_embedding_dir'):
            if flags[flag].value:
                exporting.check_new(
                    flags[flag].value, flag
                )  # Before hours of training rather than after.
        check_flags(flags)
        command_line.check_heeded(flags)
        self.flags, self.defaults, self.spec = flags, SOURCES[flags.datasource], episode_spec(flags)
        for flag in ('write_tasks', 'tasks_file'):
            if flags[flag].value and not self.defaults.classification:
                raise UserError(
                    f'--{flag}: lists tasks of images; --datasource={flags.datasource} has none'
                )
        self.pretrain_iterations, self.metatrain_iterations = (
            flags.pretrain_iterations,
            flags.metatrain_iterations,
        )
        if flags.baseline == 'oracle':
            self.pretrain_iterations += self.metatrain_iterations
            self.metatrain_iterations = 0
        self.source = self.defaults.load(flags)
        self.output_dim = (
            self.spec.way if self.defaults.classification else self.defaults.output_dim
        )
        network = self.defaults.network(flags, self.source.input_shape, self.output_dim)
        self.metric = self.source.objective.metric_name
        self.strategy = distribute.make_strategy(flags.strategy, flags.meta_batch_size)
        keras.utils.set_random_seed(flags.seed)  # for the initial weights of Keras layers
        with self.strategy.scope():
            self.learner = algorithms.registry()[flags.algorithm].from_flags(
                flags, network, self.source.objective
            )
            self.optimizers = {
                phase: training.adam(flags.meta_lr, flags.meta_lr_halve_every)
                for phase in ('pretrain', 'metatrain')
            }
            self.ops = {
                phase: op(self.learner, self.optimizers[phase])
                for phase, op in {
                    'pretrain': training.pretrain_op,
                    'metatrain': training.metatrain_op,
                }.items()
            }
        if flags.export_embedding_dir:
            check_has_embedding(self.learner)
        if self.pretrain_iterations and not self.learner.pretrains:
            raise UserError(
                f'--pretrain_iterations, --baseline=oracle: {flags.algorithm} has no pretraining'
            )
        variables = {
            phase: named(optimizer.variables) for phase, optimizer in self.optimizers.items()
        }
        name = runs.experiment_string(flags) + (
            f'.{identity}' if (identity := getattr(self.source, 'identity', '')) else ''
        )
        self.directory = runs.RunDirectory(
            pathlib.Path(flags.logdir) / name,
            {runs.LEARNER: self.learner.named_variables(), **variables},
        )

    @property
    def iterations(self):
        return self.pretrain_iterations + self.metatrain_iterations

    def train(self):
        """Trains from the latest checkpoint, or from the start, to the last iteration."""
        flags, directory = self.flags, self.directory
        # Whatever the data cannot give is said now, not when the first validation or the evaluation
        # comes.
        draw = self.source.tasks(flags.train_on, self._training_spec(), flags.seed)
        validator = self._validator()
        self._evaluation_tasks()
        start = self._start()
        if start >= self.iterations:
            print(f'Finished: {directory.path} has iteration {start} of {self.iterations}.')
            return
        directory.forget_metrics_after(
            start
        )  # Rows of a run that was killed before its next checkpoint.
        directory.write_flags(command_line.as_flagfile(flags))
        operations = {
            phase: functools.partial(self._iterate, op, draw) for phase, op in self.ops.items()
        }
        schedule = training.Schedule(
            self.pretrain_iterations,
            self.metatrain_iterations,
            print_every=self.defaults.print_every,
            iterations_per_call=flags.iterations_per_call or self.defaults.iterations_per_call,
            validate_every=self.defaults.validate_every,
        )
        writer = tf.summary.create_file_writer(str(directory.path)) if flags.log else None
        print(f'Training {flags.algorithm} on {flags.datasource}, results in {directory.path}')
        with contextlib.closing(writer) if writer else contextlib.nullcontext():
            training.train(operations, schedule, start, directory, self.metric, validator, writer)

    def _start(self):
        """Loads what there is to start from, and returns its iteration."""
        flags, directory = self.flags, self.directory
        if flags.resume and directory.checkpoints():
            command_line.check_same_model(flags, directory.flags())
            start = directory.restore(flags.test_iter)
            if start < self.iterations:
                print(f'Resuming from iteration {start} of {self.iterations} in {directory.path}')
            return start
        if flags.init_from:
            load_weights(self.learner, flags.init_from)
            print(f'Starting from the weights of {flags.init_from}')
        if old := directory.set_aside():
            print(f'The earlier run is now {old}')
        return 0

    def _training_spec(self):
        spec = episode_spec(self.flags, training=True)
        if spec.way != self.spec.way and self.learner.fixed_way:
            raise UserError(
                f'--train_num_classes={spec.way}: {self.flags.algorithm} has one output per '
                'class, so '
                f'training and evaluation share --num_classes, {self.spec.way}'
            )
        if spec.varies and not self.learner.takes_masks:
            raise UserError(
                f'--train_way_from, --train_shot_from: {self.flags.algorithm} with '
                f'--norm={self.flags.norm} takes tasks of one size only'
            )
        return spec

    @property
    def _split(self):
        """The split that is evaluated on."""
        if self.flags.test_set:
            return 'test'
        if self.flags.train_on == 'trainval':
            raise UserError(
                '--train_on=trainval: the validation classes are trained on; evaluate with '
                '--test_set=True'
            )
        return 'val'

    def _evaluation_tasks(self):
        flags = self.flags
        if flags.tasks_file:
            tasks, count = manifest.read(flags.tasks_file, self.source, self._split, self.spec)
            if count < flags.test_tasks:
                raise UserError(
                    f'--tasks_file={flags.tasks_file}: has {count} tasks; say so by '
                    f'--test_tasks={count}'
                )
            return tasks
        return self.source.tasks(self._split, self.spec, evaluate.TASK_SEED)

    def _iterate(self, op, draw):
        tasks = self.flags.meta_batch_size
        at_once = self.learner.share(tasks, self._training_spec())
        if self.strategy.num_replicas_in_sync == 1:
            return training.iterate(op, draw, tasks, at_once)
        return distribute.iterate(self.strategy, op, draw, tasks, at_once)

    def _evaluator(self, tasks, steps):
        """See evaluate.evaluator."""
        chunk = evaluate.chunk(self.spec)
        return evaluate.evaluator(
            self.learner, tasks, steps, chunk, self.learner.share(chunk, self.spec)
        )

    def _validator(self):
        """() -> mean validation scores [inner steps of training + 1]."""
        # Endless tasks have nothing to overfit; of other data there may be no validation classes
        # left.
        if (
            self.defaults.validate_every is None
            or self.flags.train_on == 'trainval'
            or 'val' not in self.source.splits
        ):
            return None
        score = self._evaluator(
            self.source.tasks('val', self.spec, evaluate.TASK_SEED), self.flags.num_updates
        )
        return lambda: score(VALIDATION_TASKS).mean(0)

    def evaluate(self):
        """Scores the loaded checkpoint on --test_tasks tasks: screen, results.json, csv,
        pictures."""
        flags, directory = self.flags, self.directory
        if flags.init_from and not flags.train:
            load_weights(self.learner, flags.init_from)
            directory.path.mkdir(parents=True, exist_ok=True)
            iteration, origin = None, f'weights of {flags.init_from}'
        else:
            command_line.check_same_model(flags, directory.flags())
            iteration = directory.restore(-1 if flags.train else flags.test_iter)
            origin = f'iteration {iteration} of {max(iteration, self.iterations)}'
        tasks = self._evaluation_tasks()
        protocol = self._protocol(tasks)
        if flags.write_tasks:
            manifest.write(flags.write_tasks, tasks, flags.test_tasks, protocol)
        scores = self._evaluator(tasks, self.defaults.eval_steps)(flags.test_tasks)
        way = f'{self.spec.way}-way ' if self.defaults.classification else ''
        heading = (
            f'on {len(scores)} {flags.datasource} {"test" if flags.test_set else "validation"} '
            'tasks, '
            f'{way}{self.spec.shot}-shot, {origin}'
        )
        print(report.table(scores, self.metric, heading))
        report.write(
            directory.path,
            scores,
            report.results(
                scores, self.metric, protocol, flags.seed, iteration, command_line.as_dict(flags)
            ),
            flags.update_batch_size,
            flags.update_lr,
        )
        self._draw(scores, tasks, way)
        print(f'Pictures and results.json: {directory.path}')
        self._export(iteration)

    def _protocol(self, tasks):
        """Which tasks are evaluated: runs that share it were scored on the same tasks."""
        flags = self.flags
        identity = (
            {'tasks_sha256': manifest.fingerprint(tasks, flags.test_tasks)}
            if self.defaults.classification
            else {name: flags[name].value for name in self.defaults.reads}
        )
        return {
            'datasource': flags.datasource,
            'split': self._split,
            'way': self.spec.way,
            'shot': self.spec.shot,
            'query': self.spec.query,
            'task_seed': evaluate.TASK_SEED,
            **identity,
        }

    def _export(self, iteration):
        """Writes the evaluated learner, and its encoder, as SavedModels where flags ask for
        them."""
        flags, shape = self.flags, self.source.input_shape
        known = {
            'inputs': self.defaults.inputs(flags),
            'iteration': iteration,
            'flags': command_line.as_dict(flags),
        }
        if flags.export_dir:
            fixed = (
                {'way': self.spec.way}
                if self.defaults.classification and self.learner.fixed_way
                else {}
            )
            exporting.export(
                self.learner,
                flags.export_dir,
                shape,
                self.output_dim,
                self.defaults.eval_steps,
                {**fixed, 'transductive': self.learner.transductive, **known},
            )
            print(f'SavedModel: {flags.export_dir}')
        if flags.export_embedding_dir:
            export_embedding(self.learner, flags.export_embedding_dir, shape, known)
            print(f'SavedModel of the embedding: {flags.export_embedding_dir}')

    def _draw(self, scores, tasks, way):
        """The pictures beside results.json."""
        path, kind = (
            self.directory.path,
            f'{self.flags.algorithm}, {self.flags.datasource} {way}{self.spec.shot}-shot',
        )
        pictures.of_scores(
            path, scores, self.metric, self.directory.metrics(), f'{kind}, {len(scores)} tasks'
        )
        if self.defaults.classification:
            pictures.of_image_task(
                path, self.learner, tasks, f'{kind}: the first {self._split} task'
            )
        elif hasattr(self.source, 'curves'):
            shown = 3
            task = self.source.curves(self._split, self.spec, evaluate.TASK_SEED, shown, 200)
            pictures.of_curves(
                path,
                self.learner,
                task,
                self.defaults.eval_steps,
                f'{self.flags.algorithm}: {self.flags.datasource}, {self.spec.shot} support '
                'points, '
                f'the first {shown} {self._split} tasks',
            )
