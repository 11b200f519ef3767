"""Runs run_maml.py as a user types it."""

import pathlib
import subprocess
import sys

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
