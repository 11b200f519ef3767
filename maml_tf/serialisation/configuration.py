"""Objects that Keras can write into a `.keras` file and make again from it."""

import inspect
import types
from collections.abc import Iterator
from typing import Any, Self

import keras
import tensorflow as tf

TUPLE, DTYPE = '__tuple__', '__dtype__'


class Configured:
    """Remembers the arguments an object was made with, so that Keras can save and load it.

    For learners, networks, layers and objectives. A class that inherits this needs no `get_config`:

        class Learner(Configured, keras.Model): ...
        learner.save('learner.keras')
        learner = keras.models.load_model('learner.keras')

    Every subclass is registered with Keras under `maml_tf>` and its name. A program that loads a
    file imports the classes in it first.

    Arguments may be None, text, numbers, arrays, dtypes, tuples, lists and dicts of these, other
    Configured objects, and whatever Keras can serialise: models, layers, initializers. Layers and
    models among the arguments are saved with their weights. What is saved are the arguments, not
    attributes that were assigned later.
    """

    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        keras.saving.register_keras_serializable('maml_tf')(cls)

    def __new__(cls, *args, **kwargs) -> Self:
        parent = super().__new__
        new = parent(cls) if parent is object.__new__ else parent(cls, *args, **kwargs)
        # Past keras.Layer's own, which would track the arguments as parts of the layer; and in an
        # object that Keras does not search for weights.
        object.__setattr__(
            new, '_arguments', types.SimpleNamespace(**_by_name(cls.__init__, args, kwargs))
        )
        return new

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments as JSON values. Raises TypeError where one cannot be serialised."""
        config = {name: _encoded(value) for name, value in vars(self._arguments).items()}
        if isinstance(self, keras.Layer):  # Its name and dtype may have been chosen by Keras.
            of_layer = keras.Layer.get_config(self)
            takes = inspect.signature(type(self).__init__).parameters
            any_keyword = any(p.kind is p.VAR_KEYWORD for p in takes.values())
            config |= {name: of_layer[name] for name in of_layer if any_keyword or name in takes}
        return config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Makes the object that `get_config` described."""
        return cls(**{name: _decoded(value) for name, value in config.items()})

    @property
    def _layers_among_arguments(self) -> list[keras.Layer]:
        """Keras finds this when it looks for weights to save.

        It brings those of a model inside an argument that is no layer itself, such as a network.
        """
        return list(_layers(vars(self._arguments)))


def _by_name(function, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """{parameter: argument} of a call, defaults included; {} where it does not fit."""
    signature = inspect.signature(function)
    try:
        call = signature.bind(None, *args, **kwargs)
    except TypeError:
        # The constructor will say what is wrong; copy.copy, which calls none, brings its own.
        return {}
    call.apply_defaults()
    (self_name, *_), arguments = signature.parameters, call.arguments
    del arguments[self_name]
    for name, parameter in signature.parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            arguments |= arguments.pop(name)
        elif parameter.kind is parameter.VAR_POSITIONAL and arguments.pop(name):
            raise TypeError(f'*{name}: an argument without a name cannot be saved')
    return arguments


def _encoded(value: Any) -> Any:
    # Keras writes tuples as JSON lists and dtypes as text, and does not find them again.
    if isinstance(value, tuple):
        return {TUPLE: [_encoded(entry) for entry in value]}
    if isinstance(value, tf.DType):
        return {DTYPE: value.name}
    if isinstance(value, list):
        return [_encoded(entry) for entry in value]
    if isinstance(value, dict):
        return {key: _encoded(entry) for key, entry in value.items()}
    serialised = keras.saving.serialize_keras_object(value)
    if isinstance(value, keras.Model):  # How it was trained, maybe by a loss without a name.
        serialised.pop('compile_config', None)
    return serialised


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {TUPLE}:
        return tuple(_decoded(entry) for entry in value[TUPLE])
    if value.keys() == {DTYPE}:
        return tf.as_dtype(value[DTYPE])
    if {'class_name', 'config'} <= value.keys():
        return keras.saving.deserialize_keras_object(value)
    return {key: _decoded(entry) for key, entry in value.items()}


def _layers(value: Any) -> Iterator[keras.Layer]:
    """The outermost Keras layers in a value."""
    if isinstance(value, keras.Layer):
        yield value
    elif isinstance(value, Configured):
        yield from _layers(vars(value._arguments))
    elif isinstance(value, dict):
        for entry in value.values():
            yield from _layers(entry)
    elif isinstance(value, list | tuple):
        for entry in value:
            yield from _layers(entry)
