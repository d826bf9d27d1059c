#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Draws examples/photo.jpg, a picture to try image to video with: a ball on a beach, in the manner of a photograph.

    python3 tools/draw-photo.py examples/photo.jpg       (needs numpy and Pillow)"""
import sys

import numpy as np
import PIL.Image

WIDTH, HEIGHT = 1280, 768
HORIZON, SHORE = 0.42, 0.62  # of the height


def noise(rng, octaves, stretch=1):
    """Fractal noise from -1 to 1; `stretch` makes it wider than high."""
    total = np.zeros((HEIGHT, WIDTH))
    for octave in octaves:
        small = rng.standard_normal((max(2, HEIGHT // octave), max(2, WIDTH // (octave * stretch)))) * 60 + 128
        image = PIL.Image.fromarray(small.clip(0, 255).astype(np.uint8)).resize((WIDTH, HEIGHT), PIL.Image.BICUBIC)
        total += (np.asarray(image, float) / 128 - 1) * octave
    return total / np.abs(total).max()


def blend(image, colour, mask):
    image += (np.asarray(colour, float) - image) * np.clip(mask, 0, 1)[..., None]


def scene():
    rng = np.random.default_rng(2026)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH] / HEIGHT
    image = np.empty((HEIGHT, WIDTH, 3))
    image[:] = np.array([0.36, 0.58, 0.86]) + (np.array([0.98, 0.86, 0.72]) - [0.36, 0.58, 0.86]) * (y / HORIZON).clip(0, 1)[..., None] ** 2
    clouds = noise(rng, (192, 96, 48, 24, 12), 2)
    blend(image, (1, 0.97, 0.94), (clouds * 1.6 - 0.1) * (1 - y / HORIZON))
    blend(image, (1, 0.95, 0.75), np.exp(-(((x - 1.3) ** 2 + (y - 0.16) ** 2) / 0.004)))
    for far, height, colour in ((0.0, 0.10, (0.55, 0.62, 0.72)), (1.0, 0.05, (0.34, 0.44, 0.42))):
        ridge = HORIZON - height * (0.5 + 0.5 * np.sin(x * (4 + far) + 2 * far)) - 0.02 * noise(rng, (96, 48, 24))[:1]
        blend(image, colour, (y - ridge) * 300)
    waves = noise(rng, (24, 12, 6, 3), 6) * (0.3 + (y - HORIZON))
    sea = np.array([0.14, 0.36, 0.50]) + waves[..., None] * [0.30, 0.34, 0.34] + (1 - (y - HORIZON) * 4).clip(0, 1)[..., None] * 0.18
    shore = SHORE + 0.02 * np.sin(x * 5)
    image += (sea - image) * ((y - HORIZON) * 400).clip(0, 1)[..., None]
    sand = np.array([0.86, 0.74, 0.54]) + noise(rng, (48, 12, 4, 2), 2)[..., None] * 0.10
    blend(image, (0.96, 0.97, 0.96), np.exp(-((y - shore) / 0.008) ** 2))
    image += (sand - image) * ((y - shore) * 120).clip(0, 1)[..., None]
    ball(image, x, y, 0.62, 0.74, 0.15)
    return image * (1 - 0.25 * ((x - 0.83) ** 2 + (y - 0.5) ** 2))[..., None]  # darker in the corners, as with a lens


def ball(image, x, y, cx, cy, radius):
    blend(image, (0.30, 0.24, 0.20), 0.75 * np.exp(-(((x - cx + 0.10) / 0.17) ** 2 + ((y - cy - radius * 0.95) / 0.035) ** 2) * 1.5))
    nx, ny = (x - cx) / radius, (y - cy) / radius
    nz = np.sqrt((1 - nx ** 2 - ny ** 2).clip(0))
    light = (nx * 0.55 - ny * 0.62 + nz * 0.56).clip(0)
    stripes = np.where(np.floor((np.arctan2(nx * 0.8 + ny * 0.3, nz + 0.2) + 4) * 2.2) % 2 == 0, 1.0, 0.0)[..., None]
    paint = stripes * [0.86, 0.13, 0.11] + (1 - stripes) * [0.97, 0.95, 0.90]
    shaded = paint * (0.28 + 0.80 * light)[..., None] + 0.6 * light[..., None] ** 40
    image += (shaded - image) * ((radius - np.hypot(x - cx, y - cy)) * HEIGHT).clip(0, 1)[..., None]


grain = np.random.default_rng(7).standard_normal((HEIGHT, WIDTH, 1)) * 0.012
PIL.Image.fromarray(((scene() + grain).clip(0, 1) * 255).astype(np.uint8)).save(sys.argv[1], quality=88)
