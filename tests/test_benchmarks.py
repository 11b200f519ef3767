"""The benchmarks' sides compute the same, and their count of operations is that of a traced graph.
No times."""

import dataclasses
import importlib.util
import json
import math
import pathlib
import sys

import numpy as np
import pytest
import tensorflow as tf

from maml_tf.algorithms.optimisation.maml import MAML

sys.path.insert(0, str(pathlib.Path(__file__).parent / 'benchmarks'))
import step_time  # noqa: E402
import workloads  # noqa: E402

FULL = workloads.WORKLOADS
SINUSOID = dataclasses.replace(FULL['sinusoid'], tasks=2, inner_steps=2, steps=1)
STRIDED = dataclasses.replace(FULL['omniglot_5way1shot'], tasks=2, way=3, filters=4)
POOLED = dataclasses.replace(
    FULL['miniimagenet_5way1shot'],
    tasks=2,
    way=3,
    filters=4,
    query=2,
    inner_steps=1,
    input_shape=(20, 17, 3),
)
CASES = {'sinusoid': SINUSOID, 'strided': STRIDED, 'pooled': POOLED}
CASES |= {
    f'{name}-first-order': dataclasses.replace(CASES[name], first_order=True)
    for name in ('sinusoid', 'pooled')
}
cases = pytest.mark.parametrize('workload', CASES.values(), ids=CASES)


def first_step(workload, side):
    return step_time.TensorFlowSide(workload, side).first_step()


@pytest.fixture(autouse=True)
def uncompiled(monkeypatch):
    monkeypatch.setattr(MAML, 'xla', False)


@pytest.mark.slow
@cases
def test_map_fn_computes_what_the_package_computes(workload):
    ours, theirs = first_step(workload, 'ours'), first_step(workload, 'map_fn')
    assert theirs == pytest.approx(ours, rel=1e-4)
    assert ours['gradient_norm'] > 0.1


@pytest.mark.skipif(not importlib.util.find_spec('torch'), reason='PyTorch is not installed')
@pytest.mark.slow
@cases
def test_pytorch_computes_what_the_package_computes(workload):
    import torch_step

    ours = first_step(workload, 'ours')
    for style in ('loop', 'vmap'):
        assert torch_step.Side(workload, style).first_step() == pytest.approx(ours, rel=1e-4)


def multiply_adds(operation):
    """Of a convolution, its gradients or a matrix product; 0 of everything else."""
    shapes = [x.shape for x in operation.inputs]
    if operation.type == 'MatMul':
        return (
            math.prod(operation.outputs[0].shape)
            * shapes[0][0 if operation.get_attr('transpose_a') else 1]
        )
    if operation.type == 'Conv2D':  # image, kernel -> image
        return math.prod(operation.outputs[0].shape) * math.prod(shapes[1][:3])
    if operation.type == 'Conv2DBackpropInput':  # sizes, kernel, gradient of the output
        return math.prod(shapes[2]) * math.prod(shapes[1][:3])
    if operation.type == 'Conv2DBackpropFilter':  # image, sizes, gradient of the output
        return math.prod(shapes[2]) * math.prod(operation.outputs[0].shape[:3])
    return 0


@pytest.mark.slow
@cases
def test_flops_are_those_of_the_graph_of_the_authors_form(workload):
    one_task = dataclasses.replace(workload, tasks=1)
    learner = step_time.build_learner(one_task)
    step = step_time.TaskByTask(one_task, learner)
    data = [tf.constant(array[0, 0]) for array in one_task.batches()]

    @tf.function(autograph=False)
    def gradients():
        with tf.GradientTape() as tape:
            loss = step._query_loss(
                {name: tf.convert_to_tensor(w) for name, w in learner.meta_weights.items()}, *data
            )
        return tape.gradient(loss, learner.trainable_variables)

    graph = gradients.get_concrete_function().graph
    needed, ahead = {}, [tensor.op for tensor in graph.outputs]
    while ahead:
        operation = ahead.pop()
        if operation.name not in needed:
            needed[operation.name] = operation
            ahead += [tensor.op for tensor in operation.inputs]
    assert workload.flops() == 2 * workload.tasks * sum(map(multiply_adds, needed.values()))


def test_sides_that_differ_are_refused():
    same, other = {'loss': 1.0, 'gradient_norm': 2.0}, {'loss': 1.0, 'gradient_norm': 2.1}
    step_time.check_equal({'ours': same, 'map_fn': same})
    with pytest.raises(SystemExit, match='map_fn and ours .* gradient_norm'):
        step_time.check_equal({'ours': same, 'map_fn': other})
    with pytest.raises(SystemExit, match='loss nan'):
        step_time.check_equal({'ours': same, 'map_fn': {'loss': math.nan, 'gradient_norm': 2.0}})


@pytest.mark.slow
def test_a_run_writes_table_and_json(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(step_time.WORKLOADS, 'sinusoid', SINUSOID)
    monkeypatch.setattr(step_time, 'MATMUL', 64)
    step_time.main(
        [
            '--workloads=sinusoid',
            '--sides=ours',
            '--rounds=2',
            '--first_order',
            f'--output={tmp_path / "times.json"}',
        ]
    )
    (measurement,) = json.loads((tmp_path / 'times.json').read_text())['measurements']
    assert measurement['workload'] == 'sinusoid' and measurement['first_order']
    ours = measurement['sides']['ours']
    assert len(ours['ms']) == len(measurement['matmul_gflops']) == 2 and ours['peak_mb'] > 10
    np.testing.assert_allclose(
        ours['loss'],
        first_step(dataclasses.replace(SINUSOID, first_order=True), 'ours')['loss'],
        rtol=1e-4,
    )
    assert 'sinusoid, first order' in capsys.readouterr().out
