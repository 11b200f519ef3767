"""TensorFlow Datasets builders of sets that cannot be downloaded, prepared once from raw files."""

import abc
import contextlib
import io
import pathlib
import shutil
from collections.abc import Callable, Iterator

import numpy as np
import tensorflow_datasets as tfds

from maml_tf.datasets.raw.images import SIDE, MissingClasses, RawSplit
from maml_tf.datasets.raw.listing import SPLITS
from maml_tf.datasets.raw.prepared import whole
from maml_tf.errors import ArgumentError, UserError
from maml_tf.serialisation.lock import held
from maml_tf.serialisation.tensorflow_errors import cause_of_files, reason
from maml_tf.terminal import progress

BATCH = 500  # examples


class ManualBuilder(tfds.core.GeneratorBasedBuilder):
    """Builds a TensorFlow Datasets set of 84x84 images with a `label` and an `index`.

    `label` numbers the classes of all splits, `index` the images of a split class by class, so that
    their order does not depend on that of the files.
    """

    MANUAL_DOWNLOAD_INSTRUCTIONS = 'this set cannot be downloaded: name the folder that holds it'
    TITLE: str  # what the set is called in messages

    @staticmethod
    @abc.abstractmethod
    def find(manual_dir: pathlib.Path) -> dict[str, Callable[[], RawSplit]]:
        """Returns {split: () -> RawSplit} of what is in the folder `manual_dir`.

        Raises: ArgumentError where it is not such a set.
        """

    def _image_info(self, label, **kwargs):
        """Returns the DatasetInfo, given the feature `label`."""
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            supervised_keys=('image', 'label'),
            features=tfds.features.FeaturesDict(
                {
                    'image': tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format='png'),
                    'label': label,
                    'index': np.int64,
                }
            ),
            **kwargs,
        )

    def _raw_splits(self, manual_dir):
        # Everything that can be seen without reading an image is checked for all splits before the
        # first is read.
        splits, missing = {}, []
        for split, read in self.find(manual_dir).items():
            try:
                splits[split] = read()
            except MissingClasses as error:
                missing.append(str(error))
        if missing:
            hint = ''
            if all(pathlib.Path(manual_dir, split).is_dir() for split in SPLITS):
                hint = (
                    f'. To train on the classes that are there: --datasource=directory '
                    f'--data_dir={manual_dir} takes this layout'
                )
            raise UserError('; '.join(missing) + hint)
        return splits

    def _split_generators(self, dl_manager):
        generators = {}
        first = 0
        for split, raw in self._raw_splits(dl_manager.manual_dir).items():
            generators[split] = self._generate_examples(split, raw, first)
            first += len(raw.class_names)
        return generators

    def _generate_examples(self, split, raw, first):
        labels = {name: number for number, name in enumerate(raw.class_names, start=first)}
        in_order = sorted(
            range(len(raw.images)), key=lambda i: (labels[raw.images[i].label], raw.images[i].name)
        )
        images = progress.bar(raw.images, split, unit=' images')
        for image, index in zip(images, np.argsort(in_order).tolist()):
            yield image.name, {'image': image.read(), 'label': labels[image.label], 'index': index}


def prepared_builder(
    builder_class: type[ManualBuilder],
    data_dir: str | pathlib.Path | None = None,
    manual_dir: str | pathlib.Path | None = None,
) -> ManualBuilder:
    """Returns a ManualBuilder whose set is prepared, which happens once.

    Args:
      data_dir: the TensorFlow Datasets directory that holds the prepared set or receives it; None:
        TFDS's own.
      manual_dir: the folder with the raw files; None: TFDS's `downloads/manual` in the data
        directory.
    Raises:
      ArgumentError: neither the prepared set nor the raw files are there.
      UserError: a raw file is bad, or a prepared set is incomplete.
    """
    directory = pathlib.Path(data_dir or tfds.core.constants.DATA_DIR).expanduser()
    made = whole(directory / builder_class.name, builder_class.TITLE, builder_class)
    builder = made(data_dir=data_dir)
    if _is_prepared(builder):
        return builder
    _prepare(builder, manual_dir)
    return builder_class(data_dir=data_dir)


def batches(builder: ManualBuilder, split: str) -> Iterator[dict[str, np.ndarray]]:
    """Yields the examples of a split, as {feature: array}, in TFDS's order."""
    examples = builder.as_dataset(
        split=split, read_config=tfds.ReadConfig(try_autocache=False)
    ).batch(BATCH)
    return examples.prefetch(2).as_numpy_iterator()


def _is_prepared(builder):
    # builder.is_prepared() logs a warning where it is not.
    return (builder.data_path / 'dataset_info.json').exists()


def _prepare(builder, manual_dir):
    """Writes the set, or leaves nothing behind; of two processes at once, one waits."""
    path = pathlib.Path(builder.data_dir)
    folder = pathlib.Path(manual_dir or builder.data_dir_root / 'downloads/manual').expanduser()
    _check_can_be_prepared(builder, folder)
    with held(path, 'prepares it', wait=True) as locked:
        if _is_prepared(builder):
            return
        if locked:  # What there is, killed processes left.
            for left in path.parent.glob(f'incomplete.*_{path.name}'):
                shutil.rmtree(left, ignore_errors=True)
        print(f'Preparing {builder.TITLE} from {folder} in {builder.data_dir}, once')
        tfds.display_progress_bar(False)  # It knows no total and shows long paths.
        # It stays empty, and is removed with the others if this process is killed.
        downloads = path.with_name(f'incomplete.downloads_{path.name}')
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # What TFDS prints says less.
                builder.download_and_prepare(
                    download_dir=downloads,
                    download_config=tfds.download.DownloadConfig(manual_dir=folder),
                )
        except UserError:  # It names the raw file.
            raise
        except Exception as error:
            if (cause := cause_of_files(error)) is None:
                raise
            # Where there are no locks, another process may have been faster, and its set in the way
            # of this one's.
            if not _is_prepared(builder):
                raise _not_prepared(builder, cause) from error
        finally:
            tfds.display_progress_bar(True)
            shutil.rmtree(downloads, ignore_errors=True)
            # TFDS removes its incomplete directory, but not an empty one above it.
            with contextlib.suppress(OSError):
                path.parent.rmdir()


def _check_can_be_prepared(builder, folder):
    if builder.data_path.exists():
        raise UserError(
            f'{builder.data_dir}: a prepared {builder.TITLE} without its dataset_info.json; '
            'remove it'
        )
    try:
        builder.find(folder)  # TFDS would ask for the directory in many lines and make others.
    except ArgumentError as error:
        raise ArgumentError(
            error.argument,
            error.value,
            f'{error.reason}. Nor is it prepared in {builder.data_dir}, where data_dir leads',
        ) from None


def _not_prepared(builder, error):
    where = getattr(error, 'filename', None)
    why = reason(error) + (f': {where}' if where else '')
    return UserError(
        f'{builder.data_dir}: {builder.TITLE} could not be prepared ({why}), and nothing is left '
        'of it; make room or mend it, and give the same command again'
    )
