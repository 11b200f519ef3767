"""Made-up files of land cover in the layouts that people have on disk."""

import numpy as np
import rasterio
from PIL import Image
from rasterio.transform import from_origin

from maml_tf.datasets.landcover.deepglobe import COLOURS

# Of IGBP: a forest, croplands, the sea; and how bright each is in Sentinel-2's bands.
IGBP = (1, 12, 17)
BRIGHT = {1: 900, 12: 2500, 17: 200}
TRANSFORM = from_origin(690_000, 5_340_000, 10, 10)


def write_tif(path, bands, crs='EPSG:32632', transform=TRANSFORM, **kwargs):
    """Writes [height, width, bands] as a GeoTIFF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    height, width, count = bands.shape
    known = {'crs': crs, 'transform': transform} if crs else {}
    with rasterio.open(
        path,
        'w',
        driver='GTiff',
        height=height,
        width=width,
        count=count,
        dtype=bands.dtype,
        compress='deflate',
        **known,
        **kwargs,
    ) as file:
        file.write(np.moveaxis(bands, -1, 0))


def blocks(rng, side, choices):
    """Labels [side, side] in 4x4 squares of random classes."""
    return np.kron(rng.choice(choices, (4, 4)), np.ones((side // 4, side // 4), np.int64))


def reflectances(rng, igbp, bands):
    """uint16 [side, side, bands], by which the classes can be told apart."""
    level = np.vectorize(BRIGHT.get)(igbp)[..., np.newaxis] * np.linspace(0.5, 1.5, bands)
    return np.clip(level + rng.normal(0, 60, level.shape), 0, 10_000).astype(np.uint16)


def write_sen12ms(folder, scenes, patches=8, s1=True, seed=0):
    """Writes patches of SEN12MS; returns {region: [labels of each patch, IGBP]}."""
    rng, written = np.random.default_rng(seed), {}
    for season, scene in scenes:
        of_region = written.setdefault(f'{season}_{scene}', [])
        for patch in range(1, patches + 1):
            igbp = blocks(rng, 256, IGBP)
            of_region.append(igbp)
            radar = rng.uniform(-30, 2, (256, 256, 2)).astype(np.float32)
            planes = {
                'lc': np.repeat(igbp[..., np.newaxis], 4, -1).astype(np.uint16),
                's2': reflectances(rng, igbp, 13),
                **({'s1': radar} if s1 else {}),
            }
            for sensor, bands in planes.items():
                name = f'{season}_{sensor}_{scene}_p{patch}.tif'
                write_tif(folder / season / f'{sensor}_{scene}' / name, bands)
    return written


def write_deepglobe(folder, names, side=192, seed=0):
    """Writes images with masks; returns {name: numbers of the classes [side, side]}."""
    rng, written = np.random.default_rng(seed), {}
    folder.mkdir(parents=True, exist_ok=True)
    colours = np.array([*COLOURS.values(), (0, 0, 0)], np.uint8)
    for name in names:
        numbers = np.kron(rng.integers(0, 3, (12, 12)), np.ones((side // 12,) * 2, np.int64))
        numbers[:4, :4] = len(COLOURS)  # unknown
        written[name] = numbers
        Image.fromarray(colours[numbers]).save(folder / f'{name}_mask.png')
        picture = 60 * numbers[..., np.newaxis] + rng.integers(0, 30, (side, side, 3))
        Image.fromarray(np.clip(picture, 0, 255).astype(np.uint8)).save(folder / f'{name}_sat.jpg')
    return written
