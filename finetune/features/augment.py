"""Training pictures moved a little, anew each epoch: shift, rotation, zoom, elastic distortion.

In batches, by NumPy: each output pixel looks up a place in its picture, between four pixels (bilinear). What lies
beyond the edge is the edge. Elastic distortion is that of P. Simard, D. Steinkraus, J. Platt, "Best Practices for
Convolutional Neural Networks Applied to Visual Document Analysis", 2003.
"""

from __future__ import annotations

import numpy as np

from finetune.config import AugmentConfig

PIXELS_AT_ONCE = 25_000  # what stays in the cache of a core


def is_on(config: AugmentConfig) -> bool:
    return bool(config.shift or config.rotate or config.zoom or config.elastic)


def augment(x: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """float32 (N, channels, H, W) -> the same pictures, each moved on its own. One state of `rng`, one result."""
    moved = np.empty_like(x)
    at_once = max(1, PIXELS_AT_ONCE // (x.shape[2] * x.shape[3]))
    for start in range(0, len(x), at_once):
        piece = slice(start, start + at_once)
        rows, columns = places(len(x[piece]), *x.shape[2:], config, rng)
        moved[piece] = look_up(x[piece], rows, columns)
    return moved


def places(
    count: int, height: int, width: int, config: AugmentConfig, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns (count, H, W), float32, where each output pixel looks."""
    shift = rng.uniform(-config.shift, config.shift, (2, count, 1, 1)).astype(np.float32)
    angle = np.radians(rng.uniform(-config.rotate, config.rotate, (count, 1, 1))).astype(np.float32)
    zoom = rng.uniform(1 - config.zoom, 1 + config.zoom, (count, 1, 1)).astype(np.float32)
    middle_row, middle_column = (height - 1) / 2, (width - 1) / 2
    y = np.arange(height, dtype=np.float32)[None, :, None] - np.float32(middle_row)
    x = np.arange(width, dtype=np.float32)[None, None, :] - np.float32(middle_column)
    cosine, sine = np.cos(angle) / zoom, np.sin(angle) / zoom
    rows = cosine * y - sine * x + (np.float32(middle_row) + shift[0])
    columns = sine * y + cosine * x + (np.float32(middle_column) + shift[1])
    if config.elastic:
        rows += elastic_field(count, height, width, config, rng)
        columns += elastic_field(count, height, width, config, rng)
    return rows, columns


def elastic_field(count: int, height: int, width: int, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Smooth displacements (count, H, W) in pixels, whose mean length along this axis is `config.elastic`."""
    noise = rng.standard_normal((count, height, width), dtype=np.float32)
    field = smoothing(height, config.smoothness) @ noise @ smoothing(width, config.smoothness).T
    return field * np.float32(config.elastic / np.abs(field).mean())


def smoothing(size: int, deviation: float) -> np.ndarray:
    """The Gaussian filter of one axis as a matrix (size, size)."""
    distance = np.arange(size)[:, None] - np.arange(size)
    kernel = np.exp(-0.5 * (distance / deviation) ** 2)
    return (kernel / kernel.sum(1, keepdims=True)).astype(np.float32)


def look_up(x: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """x (B, channels, H, W) at the places (B, H, W), bilinear."""
    count, channels, height, width = x.shape
    rows, columns = rows.clip(0, height - 1), columns.clip(0, width - 1)
    top, left = np.minimum(rows.astype(np.int32), height - 2), np.minimum(columns.astype(np.int32), width - 2)
    down, right = (rows - top)[:, None], (columns - left)[:, None]  # 0..1
    planes = np.arange(count * channels).reshape(count, channels, 1, 1) * (height * width)
    first, flat = planes + (top * width + left)[:, None], x.reshape(-1)

    def corner(offset: int) -> np.ndarray:
        return flat[offset:].take(first, mode="clip")  # "clip" only because it is the fastest: none lies outside

    top_left, bottom_left = corner(0), corner(width)
    above = top_left + right * (corner(1) - top_left)
    below = bottom_left + right * (corner(width + 1) - bottom_left)
    return above + down * (below - above)
