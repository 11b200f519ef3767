"""Counts a run's file operations in each of its phases, and ends the run at one of them."""

import builtins
import collections
import functools
import importlib
import io
import json
import os
import pathlib
import resource
import signal

# What a run does last of these is its phase; 'around' is what lies outside them: the lock, checks.
PHASES = {
    'preparation': (
        'maml_tf.datasets.directory:mapped',
        'maml_tf.datasets.raw.manual_builder:_prepare',
    ),
    'training': ('run_maml:run_training',),
    'checkpoint': tuple(
        f'maml_tf.saving.run_directory:RunDirectory.{name}'
        for name in ('save', 'save_best', 'save_among_best', 'write_seconds')
    ),
    'evaluation': ('run_maml:run_evaluation',),
    'export': ('maml_tf.commands.run_evaluation:run_export',),
}
AROUND = 'around'
OF_OS = ('replace', 'rename', 'unlink', 'remove', 'mkdir', 'rmdir', 'truncate', 'fsync')
OF_TENSORFLOW = (
    *('tensorflow.train:Checkpoint.write', 'tensorflow.io:TFRecordWriter.write'),
    *(
        f'tensorflow.python.lib.io.file_io:{name}'
        for name in ('atomic_write_string_to_file', 'write_string_to_file', 'rename_v2')
    ),
    'tensorflow.python.lib.io.file_io:recursive_create_dir_v2',
)
# half: half of the bytes are written. bytes: from here on no file may grow beyond so many, and the
# system ends the process in the midst of writing, whoever writes.
HOW = ('before', 'half', 'after', 'bytes')
BYTES = 300


class Operations:
    """Hooks what this process does to files in a directory, until it ends.

    Args:
      root: the directory; operations elsewhere do not count.
      record: a file that the number of operations in each phase is written to in the end, or what
        was about to happen where the run is ended.
      phase, number, how: where and how the run is ended, one of PHASES and HOW; number 0: nowhere.
    """

    def __init__(self, root, record, phase='', number=0, how='before'):
        self._root, self._record = os.path.realpath(root), record
        self._phase, self._left, self._how = phase, number, how
        self._stack, self.counts = [AROUND], collections.Counter()
        for name, places in PHASES.items():
            for place in places:
                self._wrap(place, functools.partial(self._in_phase, name))
        for name in OF_OS:
            self._wrap(f'os:{name}', functools.partial(self._counted, name))
        for place in OF_TENSORFLOW:
            method = place.count('.') and '.' in place.rsplit(':', 1)[1]
            self._wrap(place, functools.partial(self._counted, place, argument=int(method)))
        opened = functools.partial(self._opened, io.open)
        builtins.open = io.open = opened

    def write(self):
        """Writes the numbers of operations."""
        self._note(dict(self.counts))

    def _wrap(self, place, call):
        module, _, path = place.partition(':')
        *outer, name = path.split('.')
        owner = functools.reduce(getattr, outer, importlib.import_module(module))
        act = getattr(owner, name)

        @functools.wraps(act)
        def acting(*arguments, **options):
            return call(act, *arguments, **options)

        setattr(owner, name, acting)

    def _in_phase(self, name, act, *arguments, **options):
        self._stack.append(name)
        try:
            return act(*arguments, **options)
        finally:
            self._stack.pop()

    def _counted(self, what, act, *arguments, argument=0, **options):
        path = arguments[argument] if len(arguments) > argument else ''
        if not self._now(path, what):
            return act(*arguments, **options)
        if self._how in ('before', 'half'):
            self._end()
        result = act(*arguments, **options)
        if self._how == 'after':
            self._end()
        return result

    def _opened(self, act, path, mode='r', *arguments, **options):
        if not set(mode) & set('wax+'):
            return act(path, mode, *arguments, **options)
        opened = self._counted('open', act, path, mode, *arguments, **options)
        write = opened.write

        def writing(content):
            if not self._now(path, 'write'):
                return write(content)
            if self._how != 'before':
                write(content[: len(content) // 2] if self._how == 'half' else content)
                opened.flush()
            if self._how != 'bytes':
                self._end()
            return len(content)

        if not isinstance(path, int):
            opened.write = writing
        return opened

    def _now(self, path, what):
        """Counts an operation, and says whether it is the one to end the run at."""
        if not isinstance(path, int) and not self._is_ours(path):
            return False
        phase = self._stack[-1]
        self.counts[phase] += 1
        self._left -= phase == self._phase
        if self._left or phase != self._phase:
            return False
        self._left = -1
        self._note({'phase': phase, 'how': self._how, 'what': what, 'path': str(path)})
        if self._how == 'bytes':
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
            resource.setrlimit(resource.RLIMIT_FSIZE, (BYTES, resource.RLIM_INFINITY))
        return True

    def _is_ours(self, path):
        # What is removed with its directory goes by its name alone.
        path = os.fspath(path) if isinstance(path, str | os.PathLike) else ''
        return not os.path.isabs(path) or os.path.realpath(path).startswith(self._root)

    def _note(self, content):
        file = os.open(self._record, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.write(file, json.dumps(content).encode())
        os.close(file)

    @staticmethod
    def _end():
        os.kill(os.getpid(), signal.SIGKILL)


def recorded(path):
    """Returns what Operations wrote; {} where nothing was written."""
    path = pathlib.Path(path)
    return json.loads(path.read_text()) if path.exists() else {}
