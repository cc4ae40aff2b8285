"""Make a labelled archive of phantom head slices, with no download and no patient.

The anatomy is the MNI152 T1 template (ICBM 152 nonlinear symmetric 2009a; Fonov et al. 2009) in the
copy that the nilearn wheel ships. It is stripped of the skull, so meninges, bone and scalp are
drawn around the brain by distance. Every "patient" has a head pose, a smooth elastic warp, a
contrast, a coil's bias field, Rician noise (Gudbjartsson and Patz 1995) and one class. The tumours
are simple shapes: this shows the way through the service, and is no substitute for data.
"""

import importlib.util
import io
import zipfile
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from scipy.special import expit

CLASSES = ("ring_enhancing", "solid", "no_tumour")
TEMPLATE = "datasets/data/mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
FIELD_OF_VIEW_MM = 256.0
MARGIN_MM = 30
EPOCH = (2026, 1, 1, 0, 0, 0)

Array = NDArray[np.float32]


@dataclass(frozen=True)
class Head:
    """The template in a margin of air; 1 voxel is 1 mm in `t1` and 2 mm in `outside_mm`."""

    t1: Array  # (X, Y, Z) in [0, 1], RAS+
    outside_mm: Array  # (X / 2, Y / 2, Z / 2), distance to the brain's hull, negative inside
    centre_mm: NDArray[np.float64]  # (3,)


def write_phantom(path: Path, patients: int, slices: int, size_px: int, seed: int) -> None:
    """Write a zip of `<class>/p<patient>_s<slice>.png`, 8-bit grayscale `size_px` squares.

    Patient i has the class `CLASSES[i % 3]` and `slices` neighbouring axial slices, at most 4 mm
    apart, that all show its tumour. The same arguments give the same bytes.

    Raises:
        ValueError: for counts or a size below 1.
        ModuleNotFoundError: when nilearn is not installed.
    """
    if min(patients, slices, size_px) < 1:
        raise ValueError(f"{patients=}, {slices=} and {size_px=} must be at least 1")
    head = load_head()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for patient in range(patients):
            name = CLASSES[patient % len(CLASSES)]
            rng = np.random.default_rng([seed, patient])
            for index, image in enumerate(draw_patient(head, name, slices, size_px, rng)):
                data = io.BytesIO()
                Image.fromarray(image).save(data, "PNG")
                info = zipfile.ZipInfo(f"{name}/p{patient:03d}_s{index:02d}.png", EPOCH)
                archive.writestr(info, data.getvalue())


def load_head() -> Head:
    """Load the template from the nilearn wheel, without importing nilearn."""
    spec = importlib.util.find_spec("nilearn")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("the phantom is made from a template in nilearn: install it")
    image = nibabel.Nifti1Image.from_filename(Path(spec.submodule_search_locations[0]) / TEMPLATE)
    t1 = np.pad(np.asarray(image.dataobj), MARGIN_MM)
    mask = t1[::2, ::2, ::2] > 25  # noqa: PLR2004 - of 255: the template is 0 outside the brain
    hull = ndimage.binary_fill_holes(ndimage.binary_closing(mask, iterations=6))
    outside_mm = 2 * (ndimage.distance_transform_edt(~hull) - ndimage.distance_transform_edt(hull))
    centre_mm = 2 * np.array(ndimage.center_of_mass(hull))
    return Head((t1 / np.float32(255)).astype(np.float32), outside_mm.astype(np.float32), centre_mm)


def draw_patient(
    head: Head, name: str, slices: int, size_px: int, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Draw the slices of one patient, (slices, size_px, size_px) uint8, anterior side up."""
    spacing_mm = min(4.0, 20.0 / slices)
    level_mm = rng.uniform(-12, 38)
    points = _plane_points(head, slices, size_px, spacing_mm, level_mm, rng)
    points += 4.0 * np.stack([_smooth_field(points, head, rng, scale=3.0) for _ in range(3)])
    signal = _anatomy(head, points, rng)
    if name != "no_tumour":
        middle = points[:, slices // 2].reshape(3, -1)
        signal = _add_tumour(signal, head, points, middle, name, rng)
    return _acquire(signal, points, head, rng)


def _plane_points(
    head: Head,
    slices: int,
    size_px: int,
    spacing_mm: float,
    level_mm: float,
    rng: np.random.Generator,
) -> Array:
    """Return the template position of every pixel, (3, slices, size_px, size_px) in mm."""
    in_plane = (np.arange(size_px) + 0.5 - size_px / 2) * FIELD_OF_VIEW_MM / size_px
    z = level_mm + spacing_mm * (np.arange(slices) - (slices - 1) / 2)
    # Radiological: the patient's right (+x) on the left of the image, anterior (+y) at the top.
    grid = np.stack(np.meshgrid(z, -in_plane, -in_plane, indexing="ij"))[::-1]
    a, b, c = np.radians(rng.normal(0, (5, 4, 6)))
    tilt = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    roll = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    turn = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    matrix = tilt @ roll @ turn @ np.diag(1 / rng.normal(1.0, 0.05, 3))
    moved = np.tensordot(matrix, grid - rng.normal(0, 4, 3)[:, None, None, None] * [[[[1]]]], 1)
    return (moved + head.centre_mm[:, None, None, None]).astype(np.float32)


def _smooth_field(points: Array, head: Head, rng: np.random.Generator, scale: float = 2.5) -> Array:
    """Sample a smooth random field of unit variance at `points`; `scale` is in 1/20 of the head."""
    noise = ndimage.gaussian_filter(rng.normal(size=(20, 20, 20)), scale, mode="wrap")
    noise /= noise.std()
    cell = np.array(head.t1.shape, dtype=np.float32) / 20
    at = points / cell[:, None, None, None]
    field = ndimage.map_coordinates(noise.astype(np.float32), at, order=1, mode="grid-wrap")
    return np.asarray(field, dtype=np.float32)


def _anatomy(head: Head, points: Array, rng: np.random.Generator) -> Array:
    """Return the signal of brain, fluid, bone and scalp in [0, 1]."""
    brain = ndimage.map_coordinates(head.t1, points, order=1)
    depth_mm = ndimage.map_coordinates(head.outside_mm, points / 2, order=1, cval=99.0)
    thickness = rng.uniform(0.85, 1.2) * (1 + 0.12 * _smooth_field(points, head, rng))
    # mm outside the brain's hull: fluid, meninges, bone, marrow, bone, fat, skin, air.
    at_mm = (0.0, 1.5, 2.5, 3.5, 5.0, 6.0, 7.5, 8.5, 10.0, 12.5, 14.0, 15.0)
    fat, marrow = rng.uniform(0.55, 1.0), rng.uniform(0.15, 0.45)
    values = (0.14, 0.14, 0.3, 0.08, 0.06, marrow, marrow, 0.06, fat, fat, 0.4, 0.0)
    shell = np.interp(depth_mm / thickness, at_mm, values).astype(np.float32)
    share = np.clip((brain - 0.12) / 0.15, 0, 1)  # partial volume with the fluid around
    gray_white = np.clip(brain, 0, 1) ** rng.uniform(0.8, 1.9)
    signal = share * gray_white * rng.uniform(0.75, 0.95) + (1 - share) * shell
    texture = 1 + 0.05 * _smooth_field(points, head, rng, scale=0.7)
    return np.asarray(signal * texture, dtype=np.float32)


def _add_tumour(
    signal: Array, head: Head, points: Array, middle: Array, name: str, rng: np.random.Generator
) -> Array:
    """Draw a tumour whose centre lies in the middle slice, `middle` (3, P)."""
    is_ring = name == "ring_enhancing"
    depth_mm = -ndimage.map_coordinates(head.outside_mm, middle / 2, order=1, cval=99.0)
    low_mm, high_mm = (16.0, 40.0) if is_ring else (5.0, 11.0)
    candidates = np.flatnonzero((depth_mm > low_mm) & (depth_mm < high_mm))
    centre = middle[:, rng.choice(candidates)] if candidates.size else middle.mean(axis=1)
    radius_mm = rng.uniform(13, 24) if is_ring else rng.uniform(12, 19)
    offset = points - centre[:, None, None, None]
    roughness = 0.16 if is_ring else 0.06
    bumps = roughness * _smooth_field(points, head, rng, scale=0.9)
    q = np.sqrt((offset**2).sum(axis=0)) / radius_mm + bumps  # 1 at the surface
    inside = expit(25 * (1 - q))
    is_brain = ndimage.map_coordinates(head.outside_mm, points / 2, order=1, cval=99.0) < 1.0
    inside = inside * is_brain
    if not is_ring:
        tissue = rng.uniform(0.8, 1.0) * (1 + 0.04 * _smooth_field(points, head, rng, scale=0.7))
        return np.asarray(signal * (1 - inside) + tissue * inside, dtype=np.float32)
    oedema = np.exp(-(np.clip(q - 1, 0, None) ** 2) / rng.uniform(0.1, 0.5)) * is_brain
    signal = signal * (1 - rng.uniform(0.35, 0.6) * oedema)
    wall = rng.uniform(0.14, 0.3)
    core = expit(25 * (1 - wall - q))
    ring = rng.uniform(0.85, 1.1) * (1 + 0.15 * _smooth_field(points, head, rng, scale=0.7))
    tissue = core * rng.uniform(0.12, 0.25) + (1 - core) * ring
    return np.asarray(signal * (1 - inside) + tissue * inside, dtype=np.float32)


def _acquire(
    signal: Array, points: Array, head: Head, rng: np.random.Generator
) -> NDArray[np.uint8]:
    """Add the coil's bias, the point spread and Rician noise, and quantise to 8 bits."""
    bias = np.exp(rng.uniform(0.06, 0.16) * _smooth_field(points, head, rng, scale=5.0))
    blurred = ndimage.gaussian_filter(signal * bias, (0, 0.5, 0.5))
    sigma = rng.uniform(0.012, 0.035)
    real, imaginary = rng.normal(0, sigma, (2, *signal.shape))
    magnitude = np.sqrt((blurred + real) ** 2 + imaginary**2)
    window = np.quantile(magnitude, 0.998) * rng.uniform(0.95, 1.15)
    return np.asarray(np.rint(np.clip(magnitude / window, 0, 1) * 255), dtype=np.uint8)
