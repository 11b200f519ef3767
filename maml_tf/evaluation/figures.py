"""Figures that need no screen, and fonts for names in any script.

Matplotlib's Figure draws by itself; pyplot, whose backend is the choice of the user's own program,
is left alone.
"""

import functools
import pathlib
import warnings

from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from maml_tf.serialisation.files import replaced

DPI = 110
# Fonts with the world's scripts, asked after matplotlib's own where they are installed.
FONTS = (
    'Noto Sans',
    'Noto Sans CJK JP',
    'Noto Sans CJK SC',
    'Noto Sans JP',
    'Noto Sans SC',
    'Noto Sans Devanagari',
    'Hiragino Sans',
    'PingFang SC',
    'Yu Gothic',
    'Microsoft YaHei',
    'Malgun Gothic',
    'WenQuanYi Zen Hei',
    'Arial Unicode MS',
)


@functools.cache
def fonts() -> list[str]:
    """Returns the installed fonts in which names of files and classes are written."""
    installed = set(font_manager.get_font_names())
    return ['DejaVu Sans', *(font for font in FONTS if font in installed)]


def save(figure: Figure, path: str | pathlib.Path, dpi: float = DPI) -> None:
    """Writes a figure as a file of the kind that the path's ending names.

    A run cut short leaves no part of it.
    """
    path = pathlib.Path(path)
    with replaced(path) as temporary, warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Glyph')  # A box stands for what no installed font has.
        figure.savefig(temporary, dpi=dpi, format=path.suffix[1:])


def fit_and_save(
    figure: Figure, path: str | pathlib.Path, dpi: float = DPI, legend_of: Axes | None = None
) -> None:
    """Fits the axes of a figure into it and writes it, see `save`.

    Args:
      legend_of: the axes whose legend is drawn below all axes, where it hides no curve.
    """
    bottom = 0.0
    if legend_of is not None:
        handles = legend_of.get_legend_handles_labels()
        figure.legend(*handles, loc='lower center', ncol=len(handles[0]), frameon=False, fontsize=9)
        bottom = 0.06
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Glyph')
        figure.tight_layout(rect=(0, bottom, 1, 1))
    save(figure, path, dpi)
