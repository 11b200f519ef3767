"""The meta-learners that DEML has on concepts, the features of its generator."""

import keras

from maml_tf.algorithms.metric.matching import Matching
from maml_tf.algorithms.optimisation.maml import MAML
from maml_tf.algorithms.optimisation.meta_sgd import MetaSGD
from maml_tf.algorithms.problem import Problem
from maml_tf.errors import ArgumentError
from maml_tf.inner_loop import rates
from maml_tf.learner import Learner
from maml_tf.networks.fully_connected import FullyConnected
from maml_tf.objectives.objective import Objective

META_LEARNERS = ('maml', 'meta_sgd', 'matching')
HIDDEN, INNER_LR, INNER_STEPS = 64, 0.1, 5


def concept_network(features: int, way: int, hidden: int) -> FullyConnected:
    """Makes the network of concepts: a hidden layer, if any units, and a linear one.

    It has no normalisation, so that a query's prediction does not depend on the others.
    """
    return FullyConnected((features,), way, (hidden,) if hidden else (), 'None', start='torch')


def meta_learner_of(flags, problem: Problem, features: int, objective: Objective) -> Learner:
    """Returns the meta-learner that the command line asks for, on concepts of so many features."""
    if flags.deml_learner == 'matching':
        as_they_are = keras.Sequential([keras.Input((features,)), keras.layers.Identity()])
        return Matching(as_they_are, objective)
    rate, evaluation_rate = rates(flags, INNER_LR)
    evaluation_steps = flags.test_num_updates
    if evaluation_steps is None:
        evaluation_steps = problem.evaluation_steps
    arguments = {
        'inner_steps': flags.num_updates or INNER_STEPS,
        'evaluation_steps': evaluation_steps,
        'stop_grad': flags.stop_grad,
        'seed': flags.seed,
    }
    network = concept_network(features, problem.output_dim, flags.deml_hidden)
    if flags.deml_learner == 'meta_sgd':
        return MetaSGD(network, objective, (rate, rate), **arguments)
    return MAML(network, objective, rate, evaluation_lr=evaluation_rate, **arguments)


def check_takes(meta_learner: Learner, features: int) -> None:
    """Raises ArgumentError for a meta-learner that cannot be learnt on these concepts."""
    name = type(meta_learner).__name__
    if meta_learner.example_shape != (features,):
        reason = f'takes {meta_learner.example_shape}, and concepts are {(features,)}'
        raise ArgumentError('meta_learner', name, reason)
    if getattr(meta_learner, 'rematerialise', False):
        # Such a loop hands no gradient to what its loss holds: here the concepts.
        reason = 'rematerialise=True would keep the support set from teaching the concept generator'
        raise ArgumentError('meta_learner', name, reason)
    if meta_learner.non_trainable_variables:
        raise ArgumentError('meta_learner', name, 'has variables that training does not learn')
