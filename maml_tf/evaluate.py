"""Evaluation: the metric before adaptation and after every inner step, over many tasks."""
import numpy as np
import tensorflow as tf
from tqdm import tqdm

TASKS = 600
# Not the training seed: every run, whatever its algorithm and seed, is scored on the same tasks.
TASK_SEED = 1


def evaluator(learner, draw, steps, chunk=25):
    """Compiles evaluate(tasks) -> float array [tasks, steps + 1], the objective's metric on the first `tasks` tasks.

    A progress bar appears when it takes more than some seconds.
    """
    @tf.function(jit_compile=True, autograph=False)
    def score(start):
        _, metrics = learner.query_metrics(draw(start, chunk), steps)
        return tf.transpose(metrics)

    def evaluate(tasks):
        # The last chunk may draw more tasks than are asked for: XLA compiles per shape, and tasks are endless.
        starts = tqdm(range(0, tasks, chunk), 'evaluating', unit='chunk', delay=5, leave=False, dynamic_ncols=True)
        chunks = [score(tf.constant(start, tf.int64)).numpy() for start in starts]
        return np.concatenate(chunks)[:tasks]
    return evaluate


def summarise(scores):
    """[tasks, steps + 1] -> means, standard deviations and 95% half-widths (1.96 s / sqrt(tasks)) per step."""
    means, deviations = scores.mean(0), scores.std(0)
    return means, deviations, 1.96 * deviations / np.sqrt(len(scores))


def define_flags(flags):
    """Flags of evaluation."""
    flags.DEFINE_bool('train', True, 'True: train, then evaluate; False: evaluate a trained model')
    flags.DEFINE_bool('transductive', True, 'evaluate and export with the queries of a task normalised together, as '
                      'the reference does; False: each query by itself, beside the support set')
    flags.DEFINE_bool('test_set', False, 'evaluate on the test classes; False: on the validation classes')
