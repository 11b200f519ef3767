"""The encoder of cells, with weights that all tasks share, for methods that compare embeddings."""

import keras

from maml_tf.networks.cells.cell import Cell
from maml_tf.networks.cells.cell_net import CONVOLUTIONS, check_sizes
from maml_tf.networks.encoders import BatchNorm


def cell_encoder(
    input_shape: tuple[int, int, int],
    cell: Cell,
    filters: int = 64,
    cells: int = 2,
    augmentation: tuple[keras.layers.Layer, ...] = (),
    name: str = 'encoder',
) -> keras.Model:
    """Makes what CellNet is before its linear layer; all of the last image are the features.

    With 64 filters and two cells it has 3,136 features of 28x28 images.

    Args:
      input_shape, cell, filters, cells: as of CellNet.
      augmentation: layers before the first, see augmentation.py.
      name: the model's.
    Raises: ArgumentError as CellNet.
    """
    check_sizes(input_shape, filters, cells)
    inputs = x = keras.Input(input_shape)
    for layer in augmentation:
        x = layer(x)
    before = previous = _convolved(x, filters, 3, 'stem', strides=2)
    for number in range(cells):
        if number:
            halve = keras.layers.MaxPooling2D(2, padding='same', name=f'cell{number}_pool')
            before, previous = halve(before), halve(previous)
        images, before = [before, previous], previous
        for place, (input_a, of_a, input_b, of_b) in enumerate(cell.blocks):
            block = f'cell{number}_block{place}'
            a = _operated(images[input_a], of_a, filters, f'{block}a')
            b = _operated(images[input_b], of_b, filters, f'{block}b')
            images.append(keras.layers.Add(name=block)([a, b]))
        ends = [images[end] for end in cell.ends]
        joined = keras.layers.Concatenate()(ends) if len(ends) > 1 else ends[0]
        previous = _convolved(keras.layers.ReLU()(joined), filters, 1, f'cell{number}_join')
    x = keras.layers.Flatten()(keras.layers.ReLU()(previous))
    return keras.Model(inputs, x, name=name)


def _operated(x, operation, filters, name):
    around = {'pool_size': 3, 'strides': 1, 'padding': 'same', 'name': f'{name}_pool'}
    if operation == 'max3x3':
        return keras.layers.MaxPooling2D(**around)(x)
    if operation == 'average3x3':
        return keras.layers.AveragePooling2D(**around)(x)
    if operation == 'identity':
        return x
    depth, size = CONVOLUTIONS[operation]
    x = keras.layers.ReLU()(x)
    if depth:
        x = keras.layers.DepthwiseConv2D(
            depth, padding='same', use_bias=False, name=f'{name}_depthwise'
        )(x)
    return _convolved(x, filters, size, name)


def _convolved(x, filters, size, name, strides=1):
    x = keras.layers.Conv2D(filters, size, strides, padding='same', use_bias=False, name=name)(x)
    return BatchNorm(name=f'{name}_norm')(x)
