"""Answers requests as TensorFlow Serving does, with TensorFlow alone: python serving.py BASE_PATH.

There is no package of the real server to install in tests. This takes the same way through a
SavedModel: the newest version of a model's directory, a session, tensors by the names in the
SignatureDef, and the row and column formats of the REST API
(tensorflow.org/tfx/serving/api_rest). A request is a line of JSON, and so is its answer.
"""

import base64
import json
import pathlib
import sys

import numpy as np
import tensorflow as tf


class Model:
    """The newest version in a directory; other names than numbers are none."""

    def __init__(self, base):
        versions = [path for path in pathlib.Path(base).iterdir() if path.name.isdigit()]
        newest = max(versions, key=lambda path: int(path.name))
        self.session = tf.compat.v1.Session(graph=tf.Graph())
        with self.session.graph.as_default():
            loaded = tf.compat.v1.saved_model.load(self.session, ['serve'], str(newest))
        self.signatures = loaded.signature_def

    def answer(self, request):
        signature = self.signatures[request.get('signature_name', 'serving_default')]
        inputs, outputs = dict(signature.inputs), dict(signature.outputs)
        rows = request.get('instances')
        if rows is None:
            values = named(request['inputs'], inputs)
        else:
            rows = [named(row, inputs) for row in rows]
            values = {name: [row[name] for row in rows] for name in inputs}
        feed = {info.name: tensor(name, info, values[name]) for name, info in inputs.items()}
        fetch = {name: info.name for name, info in outputs.items()}
        found = {k: v.tolist() for k, v in self.session.run(fetch, feed).items()}
        if rows is None:
            return {'outputs': found if len(found) > 1 else next(iter(found.values()))}
        if {len(value) for value in found.values()} != {len(rows)}:
            raise ValueError('outputs of another batch size')
        if len(found) == 1:
            return {'predictions': next(iter(found.values()))}
        return {'predictions': [dict(zip(found, row)) for row in zip(*found.values())]}


def named(given, inputs):
    """{input: value}; a signature with one input takes its value without the name, too."""
    if isinstance(given, dict) and {*given} == {*inputs}:
        return given
    if len(inputs) > 1:
        raise ValueError(f'wanted {sorted(inputs)}')
    return dict.fromkeys(inputs, given)


def tensor(name, info, value):
    dtype = tf.as_dtype(info.dtype)
    array = np.array(decoded(value), dtype.as_numpy_dtype)
    shape = tf.TensorShape(info.tensor_shape)
    if not shape.is_compatible_with(array.shape):
        raise ValueError(f'{name}: shape {array.shape}, wanted {shape}')
    return array


def decoded(value):
    """Bytes of every {'b64': text}."""
    if isinstance(value, list):
        return [decoded(entry) for entry in value]
    return base64.b64decode(value['b64']) if isinstance(value, dict) else value


def main():
    models = {}
    for line in sys.stdin:
        request = json.loads(line)
        base = request.pop('model')
        try:
            if base not in models:
                models[base] = Model(pathlib.Path(sys.argv[1], base))
            answer = models[base].answer(request)
        except (tf.errors.InvalidArgumentError, ValueError) as error:
            answer = {'error': str(error)}
        print(json.dumps(answer), flush=True)
    assert not [name for name in sys.modules if name.startswith('maml_tf')]


if __name__ == '__main__':
    main()
