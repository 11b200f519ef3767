"""Runs run_maml.py as a user types it."""

import contextlib
import io
import pathlib
import subprocess
import sys
import types
from unittest import mock

import absl.flags

from maml_tf.commands.command_line import parsed

ROOT = pathlib.Path(__file__).parents[1]


def run_maml(*arguments, cwd, expect=0, **kwargs):
    """Runs the program in `cwd`, where it must find nothing of the checkout; checks the exit
    code."""
    result = subprocess.run(
        [sys.executable, str(ROOT / 'run_maml.py'), *arguments],
        cwd=cwd,
        text=True,
        capture_output=True,
        timeout=600,
        **kwargs,
    )
    assert result.returncode == expect, result.stdout + result.stderr
    return result


def run_here(*arguments, cwd, expect=0):
    """Does what `run_maml` does in this process, where TensorFlow is imported already."""
    import run_maml as program

    result = types.SimpleNamespace(returncode=0)
    stdout, stderr = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(stdout),
        contextlib.redirect_stderr(stderr),
        mock.patch.object(sys, 'argv', ['run_maml.py', *arguments]),
        mock.patch.object(absl.flags, 'FLAGS', parsed(*arguments)),
    ):
        try:
            program.main(sys.argv[:1])
        except SystemExit as end:
            result.returncode = 1
            print(end.code, file=sys.stderr)
    result.stdout, result.stderr = stdout.getvalue(), stderr.getvalue()
    assert result.returncode == expect, result.stdout + result.stderr
    return result
