"""One command line, built: data, learner, run directory; trained, evaluated, drawn."""
import contextlib
import functools
import pathlib

import tensorflow as tf

from maml_tf import algorithms, command_line, distribute, evaluate, plots, report
from maml_tf import export as exporting
from maml_tf import run_directory as runs
from maml_tf import train as training
from maml_tf.episodes.sources import SOURCES, episode_spec
from maml_tf.init_from import load_weights
from maml_tf.variables import named

VALIDATION_TASKS = 100


class Experiment:
    """Everything that `flags` describe.

    Raises UserError (or one of the sources' errors) where they describe nothing that can be run.
    """

    def __init__(self, flags):
        if flags.export_dir:
            exporting.check_new(flags.export_dir)  # Before hours of training rather than after.
        self.flags, self.defaults, self.spec = flags, SOURCES[flags.datasource], episode_spec(flags)
        self.pretrain_iterations, self.metatrain_iterations = flags.pretrain_iterations, flags.metatrain_iterations
        if flags.baseline == 'oracle':
            self.pretrain_iterations += self.metatrain_iterations
            self.metatrain_iterations = 0
        self.source = self.defaults.load(flags)
        self.output_dim = self.spec.way if self.defaults.classification else self.source.output_dim
        network = self.defaults.network(flags, self.source, self.output_dim)
        self.metric = self.source.objective.metric_name
        self.strategy = distribute.make_strategy(flags.strategy)
        with self.strategy.scope():
            self.learner = algorithms.registry()[flags.algorithm].from_flags(flags, network, self.source.objective)
            self.optimizers = {phase: training.adam(flags.meta_lr) for phase in ('pretrain', 'metatrain')}
            self.ops = {phase: op(self.learner, self.optimizers[phase], self.defaults.clip) for phase, op in
                        {'pretrain': training.pretrain_op, 'metatrain': training.metatrain_op}.items()}
        variables = {phase: named(optimizer.variables) for phase, optimizer in self.optimizers.items()}
        self.directory = runs.RunDirectory(pathlib.Path(flags.logdir) / runs.experiment_string(flags),
                                           {runs.LEARNER: self.learner.named_variables(), **variables})

    @property
    def iterations(self):
        return self.pretrain_iterations + self.metatrain_iterations

    def train(self):
        """Trains from the latest checkpoint, or from the start, to the last iteration."""
        flags, directory = self.flags, self.directory
        # Whatever the data cannot give is said now, not when the first validation or the evaluation comes.
        draw = self.source.tasks('train', episode_spec(flags, training=True), flags.seed)
        validator = self._validator()
        self._evaluation_tasks()
        start = self._start()
        if start >= self.iterations:
            print(f'Finished: {directory.path} has iteration {start} of {self.iterations}.')
            return
        directory.forget_metrics_after(start)  # Rows of a run that was killed before its next checkpoint.
        directory.write_flags(command_line.as_flagfile(flags))
        operations = {phase: functools.partial(self._iterate, op, draw) for phase, op in self.ops.items()}
        schedule = training.Schedule(
            self.pretrain_iterations, self.metatrain_iterations, print_every=self.defaults.print_every,
            iterations_per_call=flags.iterations_per_call or self.defaults.iterations_per_call,
            validate_every=self.defaults.validate_every)
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

    def _evaluation_tasks(self):
        return self.source.tasks('test' if self.flags.test_set else 'val', self.spec, evaluate.TASK_SEED)

    def _iterate(self, op, draw):
        if self.strategy.num_replicas_in_sync == 1:
            return training.iterate(op, draw, self.flags.meta_batch_size)
        return distribute.iterate(self.strategy, op, draw, self.flags.meta_batch_size)

    def _validator(self):
        """() -> mean validation scores [inner steps of training + 1]."""
        if self.defaults.validate_every is None:
            return None
        score = evaluate.evaluator(self.learner, self.source.tasks('val', self.spec, evaluate.TASK_SEED),
                                   self.flags.num_updates)
        return lambda: score(VALIDATION_TASKS).mean(0)

    def evaluate(self):
        """Scores the loaded checkpoint on `evaluate.TASKS` tasks: screen, results.json, csv, pictures."""
        flags, directory = self.flags, self.directory
        if flags.init_from and not flags.train:
            load_weights(self.learner, flags.init_from)
            directory.path.mkdir(parents=True, exist_ok=True)
            iteration, origin = None, f'weights of {flags.init_from}'
        else:
            command_line.check_same_model(flags, directory.flags())
            iteration = directory.restore(-1 if flags.train else flags.test_iter)
            origin = f'iteration {iteration} of {max(iteration, self.iterations)}'
        split = 'test' if flags.test_set else 'val'
        scores = evaluate.evaluator(self.learner, self._evaluation_tasks(), self.defaults.eval_steps)(evaluate.TASKS)
        way = f'{self.spec.way}-way ' if self.defaults.classification else ''
        heading = (f'on {len(scores)} {flags.datasource} {"test" if flags.test_set else "validation"} tasks, '
                   f'{way}{self.spec.shot}-shot, {origin}')
        print(report.table(scores, self.metric, heading))
        report.write(directory.path, scores, report.results(
            scores, self.metric, split, flags.seed, iteration, command_line.as_dict(flags)),
            flags.update_batch_size, flags.update_lr)
        means, _, ci95 = evaluate.summarise(scores)
        plots.metric_by_step(directory.path / 'adaptation_by_step.png', means, ci95, self.metric,
                             f'{flags.algorithm}, {flags.datasource} {way}{self.spec.shot}-shot, {len(scores)} tasks')
        plots.learning_curve(directory.path / 'learning_curve.png', directory.metrics(), self.metric)
        if hasattr(self.source, 'curves'):
            self._draw_fits(split)
        print(f'Pictures and results.json: {directory.path}')
        if flags.export_dir:
            self._export(iteration)

    def _export(self, iteration):
        """Writes the evaluated learner as a SavedModel."""
        flags = self.flags
        fixed = {'way': self.spec.way} if self.defaults.classification else {}
        exporting.export(self.learner, flags.export_dir, self.source.input_shape, self.output_dim,
                         self.defaults.eval_steps, {
                             **fixed, 'transductive': flags.transductive, 'inputs': self.defaults.inputs,
                             'iteration': iteration, 'flags': command_line.as_dict(flags)})
        print(f'SavedModel: {flags.export_dir}')

    def _draw_fits(self, split, tasks=3, points=200):
        """Draws the first tasks: the true curve, and the prediction before and after some numbers of steps."""
        steps = self.defaults.eval_steps
        task = self.source.curves(split, self.spec, evaluate.TASK_SEED, tasks, points)
        outputs = self.learner.query_outputs(task, steps)
        shown = sorted({0, 1, steps})
        plots.fits(self.directory.path / 'fits.png', task, {step: outputs[step] for step in shown},
                   f'{self.flags.algorithm}: {self.flags.datasource}, {self.spec.shot} support points, '
                   f'the first {tasks} {split} tasks')
