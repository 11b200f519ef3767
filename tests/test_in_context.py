"""In-context learning: the cache against whole prompts, causality, curriculum, classification."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from test_conformance import source_for

from maml_tf.algorithms.model_based.curriculum import stages
from maml_tf.algorithms.model_based.in_context import InContext, InContextClassifier
from maml_tf.commands.command_line import parsed
from maml_tf.commands.experiment import problem_of
from maml_tf.datasets.functions.function_families import DecisionTree, Linear, SparseLinear
from maml_tf.episodes.points import PromptSpec
from maml_tf.episodes.task import EpisodeSpec, Task
from maml_tf.errors import ArgumentError, UserError
from maml_tf.networks.encoders import conv4
from maml_tf.networks.sequence_models.decoder import Decoder
from maml_tf.networks.sequence_models.prompt import Prompt
from maml_tf.objectives.classification import MeanClassification
from maml_tf.serialisation.variables import optimizer_names
from maml_tf.training.iterate import iterate
from maml_tf.training.operations import op_of
from maml_tf.training.phases import OuterLoop

DIMENSION, SPEC, TASKS = 3, EpisodeSpec(1, 6, 2), 4
STEP = tf.constant(0, tf.int64)


def prompt_of(dimension=DIMENSION, output_dim=1, dtype='float64', points=12, joint=False):
    """A small network whose weights are all far from where they start, so that attention is not
    even.

    The root of a head's size is exact: Keras rounds its inverse to float32.
    """
    decoder = Decoder(3, 4, 16, 2 * points, dtype=dtype)
    prompt = Prompt(decoder, dimension, output_dim, joint, dtype=dtype)
    rng = np.random.default_rng(0)
    for variable in prompt.variables:
        noise = rng.normal(size=variable.shape) / np.sqrt(variable.shape[0])
        variable.assign(noise + variable.path.endswith('gamma'))
    return prompt


@pytest.fixture(scope='module')
def setting():
    """(a learner, tasks) in float64."""
    source = Linear(DIMENSION)
    task = source.tasks('val', SPEC, 0)(0, TASKS).cast('float64')
    return InContext(prompt_of(), source.objective, dtype='float64'), task


def test_queries_beside_the_cache_equal_whole_prompts(setting):
    """Each query after each context length, against the prompt that ends with it."""
    learner, task = setting
    outputs = learner.query_outputs(task).numpy()
    assert outputs.shape == (SPEC.shot + 1, TASKS, SPEC.query, 1)
    for length in range(SPEC.shot + 1):
        for query in range(SPEC.query):
            x = tf.concat([task.support_x[:, :length], task.query_x[:, query : query + 1]], 1)
            y = tf.concat([task.support_y[:, :length], np.full([TASKS, 1, 1], 7.0)], 1)
            whole = learner.prompt.predict_all(x, y)[:, -1]
            np.testing.assert_allclose(outputs[length, :, query], whole, rtol=0, atol=1e-11)
    state = learner.adapt(task.support_x, task.support_y)
    predictions = learner.predict_query(state, task.query_x)
    np.testing.assert_allclose(predictions, outputs[-1], rtol=0, atol=1e-12)
    assert learner.axis(len(outputs)).values == tuple(range(SPEC.shot + 1))
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        name: (TASKS, 3, 2 * SPEC.shot, 4, 4) for name in ('keys', 'values')
    }


def test_what_comes_later_changes_nothing_before(setting):
    learner, task = setting
    x, y = np.array(task.support_x), np.array(task.support_y)
    before = learner.prompt.predict_all(x, y).numpy()
    for changed, at_once in ((x, True), (y, False)):
        kept = changed.copy()
        changed[:, 3] += 1
        after = learner.prompt.predict_all(x, y).numpy()
        np.testing.assert_array_equal(after[:, :3], before[:, :3])
        # x_3 counts in the prediction of y_3, and y_3 from the next on.
        assert (np.abs(after[:, 3] - before[:, 3]).min() > 1e-6) == at_once
        assert np.abs(after[:, 4:] - before[:, 4:]).min() > 1e-9
        changed[:] = kept


def test_where_weights_start():
    """N(0, 0.02^2), and over sqrt(2 layers) what is added to the hidden states."""
    decoder = Decoder(8, 2, 64, 100)
    kernels = {variable.path: variable.numpy() for variable in decoder.variables}
    for path, kernel in kernels.items():
        if path.endswith('kernel') or path.endswith('positions'):
            added = 'attention_output' in path or 'outer' in path
            expected = 0.02 / 4 if added else 0.02
            np.testing.assert_allclose(kernel.std(), expected, rtol=0.1, err_msg=path)
    blocks = [kernel for path, kernel in kernels.items() if path.endswith('query/kernel')]
    assert np.abs(blocks[0] - blocks[1]).max() > 0.01


def test_the_loss_is_the_mean_over_the_prompt(setting):
    learner, task = setting
    loss = learner.meta_loss(task, STEP)
    x, y = (np.concatenate(parts, 1) for parts in (task[::2][:2], task[1::2][:2]))
    errors = (learner.prompt.predict_all(x, y).numpy() - y) ** 2
    np.testing.assert_allclose(loss.value, errors.mean())
    np.testing.assert_allclose(loss.log['post_loss'], errors.mean())
    np.testing.assert_allclose(loss.log['post_normalised_loss'], errors.mean() / DIMENSION)
    _, scores = learner.query_scores(task)
    outputs = learner.query_outputs(task).numpy()
    errors = ((outputs - task.query_y.numpy()) ** 2).mean((2, 3))
    np.testing.assert_allclose(scores, errors / DIMENSION)


@pytest.mark.parametrize('shot, first, step', [(40, 11, 2), (100, 26, 5)])
def test_curriculum_of_the_paper(shot, first, step):
    found = stages(20, EpisodeSpec(1, shot, 1), 2000, 500_001)
    assert [stage.spec.coordinates for stage in found] == list(range(5, 21))
    assert [stage.spec.shot + 1 for stage in found] == list(range(first, shot + 2, step))
    assert [stage.start for stage in found] == list(range(0, 32000, 2000))
    assert sum(stage.iterations for stage in found) == 500_001
    assert {stage.iterations for stage in found[:-1]} == {2000}
    short = stages(20, EpisodeSpec(1, shot, 1), 2000, 3000)
    assert [stage.iterations for stage in short] == [2000, 1000, *[0] * 14]


def test_few_coordinates_have_no_curriculum():
    ((start, iterations, spec),) = map(
        lambda stage: (stage.start, stage.iterations, stage.spec),
        stages(3, EpisodeSpec(1, 6, 2), 10, 100),
    )
    assert (start, iterations, spec.shot, spec.query) == (0, 100, 7, 1)


@pytest.mark.parametrize('family', [Linear, SparseLinear, DecisionTree])
def test_prompts_of_fewer_coordinates(family):
    """y is the function of the x that is left."""
    source, sizes = family(8), {'way': 1, 'shot': 5, 'query': 2}
    few = source.tasks('train', PromptSpec(**sizes, coordinates=4), 0)(3, 50)
    whole = source.tasks('train', EpisodeSpec(**sizes), 0)(3, 50)
    np.testing.assert_array_equal(few.query_x[..., 4:], 0)
    np.testing.assert_array_equal(few.query_x[..., :4], whole.query_x[..., :4])
    parameters = source.parameters('train', 0, 3, 50, 4)
    values = source.values(few.query_x, *parameters)
    np.testing.assert_allclose(few.query_y, values, rtol=1e-5, atol=1e-5)
    if family is SparseLinear:
        there = parameters[0].numpy()[..., 0] != 0
        assert (there.sum(1) == 3).all() and not there[:, 4:].any()
    with pytest.raises(ArgumentError, match='coordinates=9: at least 1 and at most'):
        source.tasks('train', PromptSpec(**sizes, coordinates=9), 0)


def trained(stops):
    """The variables after 7 iterations of a curriculum of 2 a stage; at each stop learner and
    optimizer are made anew, as a program that starts again makes them."""
    source, kept = Linear(7), None
    for start, end in zip([0, *stops], [*stops, 7]):
        prompt = prompt_of(7, dtype='float32')
        learner = InContext(prompt, source.objective, curriculum=2)
        phases = learner.phases(OuterLoop(0, 7, 1e-2, EpisodeSpec(1, 6, 1)))
        assert len({phase.name for phase in phases}) == 3 == len(phases)
        assert len({id(phase.optimizer) for phase in phases}) == 1
        ops = [op_of(learner, phase) for phase in phases]
        variables = {**learner.named_variables(), **optimizer_names(phases[0].optimizer, learner)}
        for name, value in (kept or {}).items():
            variables[name].assign(value)
        for phase, op in zip(phases, ops):
            first, last = max(start, phase.first), min(end, phase.first + phase.iterations)
            if first < last:
                draw = source.tasks('train', phase.draws, 0)
                iterate(op, draw, 4, phase_start=phase.first)(first, last - first)
        kept = {name: np.array(variable) for name, variable in variables.items()}
    return kept


@pytest.mark.slow
def test_a_curriculum_is_resumed_exactly():
    undisturbed = trained([])
    for stops in ([2], [1, 5]):
        for name, value in trained(stops).items():
            np.testing.assert_array_equal(value, undisturbed[name], err_msg=name)


def test_evaluation_may_have_no_more_points_than_training():
    flags = parsed(
        *('--algorithm=in_context', '--datasource=linear', '--in_context_size=tiny'),
        *('--train_update_batch_size=10', '--update_batch_size=101', '--train_query=1'),
    )
    with pytest.raises(ArgumentError, match='shot=101: training leaves positions for 101'):
        InContext.from_flags(flags, problem_of(flags))


@pytest.mark.parametrize(
    'datasource, flag', [('linear', '--num_filters=32'), ('omniglot', '--in_context_curriculum=0')]
)
def test_flags_of_the_other_kind(datasource, flag):
    flags = parsed('--algorithm=in_context', f'--datasource={datasource}', flag)
    with pytest.raises(UserError, match=f'{flag}: means nothing to'):
        InContext.from_flags(flags, problem_of(flags))


WAY = 3


def classifier():
    encoder = conv4((16, 16, 1), 8)
    prompt = prompt_of(encoder.output_shape[-1], WAY, 'float32', joint=True)
    return InContextClassifier(encoder, prompt, MeanClassification())


def test_classifier(tmp_path):
    """One task at a time gives what a batch gives, labels count, the key decides the order, and
    queries do not see each other."""
    learner, spec = classifier(), EpisodeSpec(WAY, 2, 2)
    task = source_for(learner, spec).tasks('train', spec, 0)(0, TASKS)
    outputs = learner.query_outputs(task).numpy()
    assert outputs.shape == (1, TASKS, 2 * WAY, WAY)
    for i in range(TASKS):
        one = learner.query_outputs(task.map(lambda x: x[i : i + 1]))
        np.testing.assert_allclose(one[:, 0], outputs[:, i], atol=1e-4)
    others = Task(task.support_x, task.support_y[:, :, ::-1], *task[2:])
    assert np.abs(learner.query_outputs(others) - outputs).max() > 1e-3
    keys = task._replace(key=task.key + tf.constant(1, tf.uint32))
    assert np.abs(learner.query_outputs(keys) - outputs).max() > 1e-4
    state = learner.adapt(task.support_x, task.support_y, key=task.key)
    alone = learner.predict_query(state, task.query_x[:, :1])
    np.testing.assert_allclose(alone, outputs[0, :, :1], atol=1e-4)
    learner.save(tmp_path / 'learner.keras')
    loaded = tf.keras.models.load_model(tmp_path / 'learner.keras')
    np.testing.assert_array_equal(loaded.query_outputs(task), outputs)


def test_a_classifier_is_made_of_flags():
    flags = parsed('--algorithm=in_context', '--datasource=omniglot', '--in_context_size=tiny')
    learner = InContext.from_flags(flags, problem_of(flags))
    assert isinstance(learner, InContextClassifier) and learner.fixed_way
    assert learner.prompt.output_dim == 5 and learner.prompt.input_dim == 64
    assert learner.outer.meta_lr == 1e-4


@pytest.mark.slow
def test_a_classifier_learns():
    keras.utils.set_random_seed(0)
    encoder = conv4((16, 16, 1), 8)
    prompt = Prompt(Decoder(2, 2, 32, 24), encoder.output_shape[-1], WAY, joint=True)
    learner, spec = (
        InContextClassifier(encoder, prompt, MeanClassification()),
        EpisodeSpec(WAY, 2, 2),
    )
    source = source_for(learner, spec)
    (phase,) = learner.phases(OuterLoop(0, 600, 1e-3, spec))
    run = iterate(op_of(learner, phase), source.tasks('train', spec, 0), 4, 1)
    for start in range(0, 600, 100):
        log = run(start, 100)
        if log['post_accuracy'] > 0.7:
            return
    pytest.fail(str(log))


@pytest.mark.slow
def test_learns_least_squares():
    """Most of what the points say of two coordinates is known after some training."""
    keras.utils.set_random_seed(0)  # Some first weights stay on a plateau for long.
    source = Linear(2)
    learner = InContext(Prompt(Decoder(2, 2, 32, 24), 2, 1), source.objective)
    (phase,) = learner.phases(OuterLoop(0, 4000, 1e-3, EpisodeSpec(1, 8, 1)))
    run = iterate(op_of(learner, phase), source.tasks('train', phase.draws, 0), 32)
    run(0, 4000)
    scores = learner.query_scores(source.tasks('test', EpisodeSpec(1, 8, 8), 1)(0, 200))[1]
    errors = np.mean(scores, 1)
    assert 0.8 < errors[0] < 1.4 and errors[8] < 0.3 * errors[0] and errors[8] < errors[1]
