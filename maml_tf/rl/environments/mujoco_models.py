"""Robots of gymnasium as MuJoCo's models, and the optional libraries that they need."""

import contextlib
import importlib
import pathlib
import types
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

from maml_tf.errors import UserError


def optional(name: str) -> types.ModuleType:
    """Imports a module of the extra `rl`.

    Raises: UserError that says what to install.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"gymnasium or mujoco is missing ({error}): pip install '.[rl]'") from error


class Description:
    """A robot's description of the installed gymnasium, to be changed and compiled.

    Attributes:
      root: the MJCF document, an ElementTree.Element.
    Raises: UserError where gymnasium is missing.
    """

    def __init__(self, asset: str):
        gymnasium = optional('gymnasium')
        folder = pathlib.Path(gymnasium.__file__).parent / 'envs' / 'mujoco' / 'assets'
        self.root = ElementTree.parse(folder / asset).getroot()

    def sense(self, sensor: str, **attributes: str) -> None:
        """Adds a sensor: what only sensors need, MuJoCo computes for sensors alone."""
        sensors = self.root.find('sensor')
        if sensors is None:
            sensors = ElementTree.SubElement(self.root, 'sensor')
        ElementTree.SubElement(sensors, sensor, attributes)

    def compile(self) -> object:
        """Returns the mujoco.MjModel."""
        mujoco = optional('mujoco')
        # MuJoCo is to give up this attribute, and warns of it.
        mass = self.root.find('compiler').attrib.pop('settotalmass', None)
        model = mujoco.MjModel.from_xml_string(ElementTree.tostring(self.root, encoding='unicode'))
        if mass is not None:
            mujoco.mj_setTotalmass(model, float(mass))
            mujoco.mj_setConst(model, mujoco.MjData(model))
        return model


@contextlib.contextmanager
def without_warnings() -> Iterator[None]:
    """Keeps MuJoCo from writing a line for each state that is not finite, and a log file.

    It counts them in the data's warnings all the same.
    """
    mujoco = optional('mujoco')
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda text: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


def bad_states(warning: object) -> object:
    """Returns which simulations had a state, acceleration or control that is not finite.

    MuJoCo sets such a simulation back to its start, so its numbers alone do not tell.

    warning: counts [simulations, kinds, 2] of a mujoco.batch.Batch.
    """
    kinds = optional('mujoco').mjtWarning
    bad = [kinds.mjWARN_BADQPOS, kinds.mjWARN_BADQVEL, kinds.mjWARN_BADQACC, kinds.mjWARN_BADCTRL]
    return (warning[:, [int(kind) for kind in bad], 1] > 0).any(-1)
