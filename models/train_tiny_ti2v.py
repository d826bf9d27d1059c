#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Train wan-tiny-ti2v: a very small but real Wan 2.2 TI2V model (text and picture in one), in Diffusers format.

The result has the layout of Wan-AI/Wan2.2-TI2V-5B-Diffusers (VAE with 48 latent channels, residual and with 2x2 patches, one
transformer, expand_timesteps), is under 20 MB, and makes 320x192, 33-frame, 16 fps clips: of coloured shapes from text alone as
wan-tiny does, or of a picture that is given, whose shapes move or over which the camera moves as the prompt says.
Tokenizer, text encoder and the transformer's blocks begin as those of wan-tiny, of which this is the second step: the latents of
320x192 are 20x12, as wan-tiny's of 160x96 are.

Phases (each saves its result in --work, so a later phase can be run again by itself):
  vae     AutoencoderKLWan on rendered clips, and on pictures over which a camera moves  (--vae-seconds, rendering included)
  stats   latents_mean / latents_std of the VAE, and a sheet of its reconstructions
  joint   the transformer and the text encoder                            (--seconds, rendering and encoding included)
  export  the Diffusers directory: all weights bfloat16
  sample  loads the directory with Diffusers and writes contact sheets

  python3 train_tiny_ti2v.py all --work work --out wan-tiny-ti2v --samples samples    everything
Other commands: one phase by name; unpack (an exported directory into --work, to go on from it); preview (a sheet of training
clips with their captions, and one of the pictures).
The pictures are drawn by this script (noise, fallen leaves, landscapes, shaded balls, print); to them come photographs without
copyright from --photos, by default those of scikit-image (README.md lists them). Needs what train_tiny_wan.py needs.
"""
import argparse, functools, json, math, os, random, sys, time
import numpy as np
import train_tiny_wan as base
from train_tiny_wan import FRAMES, SEED, TEXT_LEN, log, pick

HERE = os.path.dirname(os.path.abspath(__file__))
SIZES = [(320, 192, 0.7), (192, 320, 0.15), (256, 256, 0.15)]  # width, height, share of the clips
TOKEN = 32  # pixels of a token, each way
SHIFT = 5.0  # flow_shift, as in the released scheduler config
DIT = dict(base.DIT, in_channels=48, out_channels=48)
VAE = dict(base_dim=24, decoder_base_dim=32, z_dim=48, dim_mult=[1, 2, 2, 2], num_res_blocks=1, attn_scales=[],
           temperal_downsample=[False, True, True], dropout=0.0, in_channels=12, out_channels=12, is_residual=True, patch_size=2,
           scale_factor_spatial=16, scale_factor_temporal=4)
PICTURE = 512  # a picture's width and height: larger than a clip, so that a camera finds something beside the frame
PHOTOS = dict(astronaut="png", camera="png", rocket="jpg", hubble_deep_field="jpg", brick="png", grass="png", gravel="png",
              coins="png")  # of scikit-image; chelsea and coffee are kept to look at
UNSEEN = dict(chelsea="png", coffee="png")

# ------------------------------------------------------------------------------------------------------------- pictures

def noise(n, size, dev, gen, octaves=6, first=3, fall=.55):
    """Fractal noise of about deviation 1, [n, 1, size, size]."""
    import torch, torch.nn.functional as F
    out, amp = torch.zeros(n, 1, size, size, device=dev), 1.
    for o in range(octaves):
        k = min(size, first * 2 ** o)
        out += amp * F.interpolate(torch.randn(n, 1, k, k, device=dev, generator=gen), (size, size), mode="bicubic", align_corners=False)
        amp *= fall
    return out / out.std((1, 2, 3), keepdim=True)


def uniform(gen, dev, n, lo, hi):
    import torch
    return (lo + (hi - lo) * torch.rand(n, device=dev, generator=gen)).view(n, 1, 1, 1)


def colors(gen, dev, n):
    """As photographs have them: few are saturated. [n, 3, 1, 1]"""
    import torch
    grey = torch.rand(n, 1, 1, 1, device=dev, generator=gen)
    return (grey + (torch.rand(n, 3, 1, 1, device=dev, generator=gen) - .5) * uniform(gen, dev, n, .1, 1.1)).clamp(0, 1)


def palette(x, gen, dev):
    """Noise to colours, between three of a picture's own."""
    import torch
    a, b, c = (colors(gen, dev, len(x)) for _ in range(3))
    x = x.mul(.9)
    return torch.lerp(torch.lerp(a, b, x.add(1).clamp(0, 1)), c, x.clamp(0, 1))


def leaves(im, gen, dev, count, lo, hi, grain):
    """Covers pictures with shapes, each shaded like a ball or flat, with a grain and an edge of light or shadow."""
    import torch
    n, _, s, _ = im.shape
    Y, X = torch.meshgrid(torch.linspace(-1, 1, s, device=dev), torch.linspace(-1, 1, s, device=dev), indexing="ij")
    u = lambda lo, hi: uniform(gen, dev, n, lo, hi)
    for i in range(count):
        r = lo * (hi / lo) ** (u(0, 1) if i < count // 2 else u(0, 1) ** 2)
        dx, dy, t, flat = X - u(-1.1, 1.1), Y - u(-1.1, 1.1), u(0, 6.28), u(.35, 1)
        p = 2. ** u(.3, 3).round()
        x, y = (dx * t.cos() + dy * t.sin()) / r, (dy * t.cos() - dx * t.sin()) / (r * flat)
        d = (x.abs().clamp(1e-3, 3) ** p + y.abs().clamp(1e-3, 3) ** p) ** (1 / p) - 1
        mask = (.5 - d * r * s / 2).clamp(0, 1)
        shadow = .45 * torch.exp(-((d * r).clamp(min=0) / .04)) * u(0, 1)
        light = 1 - u(0, .8) * (x * t.cos() - y * t.sin() + .6 * (x * t.sin() + y * t.cos())).clamp(-1.2, 1.2) * .5 - u(0, .5) * (1 + d).clamp(0, 1) ** 3
        g = torch.roll(grain, (int(torch.randint(s, (1,), generator=gen, device=dev)), i * 37 % s), (2, 3))
        body = (colors(gen, dev, n) * light + u(0, .12) * g).clamp(0, 1)
        im = torch.lerp(im * (1 - shadow), body, mask)
    return im


def landscape(gen, dev, n, s, grain):
    """Sky, clouds and hills one behind the other."""
    import torch
    Y = torch.linspace(0, 1, s, device=dev).view(1, 1, s, 1)
    u = lambda lo, hi: uniform(gen, dev, n, lo, hi)
    im = torch.lerp(colors(gen, dev, n), colors(gen, dev, n), Y.expand(n, 1, s, s))
    im = torch.lerp(im, u(.7, 1).expand(n, 3, 1, 1), (noise(n, s, dev, gen) * .5 - u(-.3, .6)).clamp(0, 1) * u(.3, 1))
    X, far = torch.linspace(-1, 1, s, device=dev).view(1, 1, 1, s), colors(gen, dev, n)
    near = colors(gen, dev, n)
    for k in range(5):
        line = noise(n, s, dev, gen, 7, 2, .5)[:, :, :1] * u(.02, .12) + .3 + .13 * k
        over = ((Y - line) * s).clamp(0, 1)
        ground = torch.lerp(far, near, k / 4) * (1.1 - .5 * (Y - line).clamp(0, 1)) + grain * u(.02, .1)
        im = torch.lerp(im, ground.clamp(0, 1), over)
    sun = ((X - u(-.8, .8)) ** 2 + (2 * Y - u(.1, .7)) ** 2).sqrt() - .12
    return torch.lerp(im, u(.85, 1).expand(n, 3, 1, 1), (.5 - sun * s / 2).clamp(0, 1) * (u(0, 1) > .5) * (Y < .3))


@functools.cache
def font(size):
    from PIL import ImageFont
    return ImageFont.load_default(size)


def print_page(rng, s):
    """Lines of letters, large and small, frames and rules: [3, s, s] in [0, 1]."""
    import torch
    from PIL import Image, ImageDraw
    color = lambda: tuple(rng.randrange(256) for _ in range(3))
    im = Image.new("RGB", (s, s), color())
    d, y = ImageDraw.Draw(im), 4
    while y < s:
        h, x = rng.choice((9, 12, 16, 24, 40, 72)), rng.randint(0, 40)
        text = " ".join("".join(rng.choice("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") for _ in range(rng.randint(1, 9)))
                        for _ in range(12))
        if rng.random() < .3: d.rectangle((x, y, rng.randint(x, s), y + rng.randint(1, 90)), color(), color(), rng.randint(1, 4))
        d.text((x, y), text, color(), font=font(h))
        y += h + rng.randint(2, 20)
    return torch.from_numpy(np.array(im)).permute(2, 0, 1).float() / 255


def load_photos(folder, names):
    """[3, h, w] uint8 each, no edge below PICTURE."""
    import torch
    from PIL import Image
    found = []
    for name, ext in names.items():
        path = os.path.join(folder, f"{name}.{ext}")
        im = Image.open(path).convert("RGB")
        k = PICTURE / min(im.size)
        if k != 1: im = im.resize((max(PICTURE, round(im.width * k)), max(PICTURE, round(im.height * k))), Image.LANCZOS)
        found.append(torch.from_numpy(np.array(im)).permute(2, 0, 1))
    return found


def photo_crops(found, n, rng, dev):
    """Parts of photographs, turned, mirrored, enlarged, lighter or darker, of other colours: [n, 3, PICTURE, PICTURE] in [0, 1]."""
    import torch, torch.nn.functional as F
    out = []
    for i in range(n):
        im = found[i % len(found)]
        k = round(PICTURE * rng.uniform(.55, 1))
        y, x = rng.randint(0, im.shape[1] - k), rng.randint(0, im.shape[2] - k)
        im = im[None, :, y:y + k, x:x + k].to(dev).float() / 255
        im = F.interpolate(im, (PICTURE, PICTURE), mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)[0]
        if rng.random() < .5: im = im.flip(2)
        if rng.random() < .15: im = im.flip(1)
        if rng.random() < .15: im = im.transpose(1, 2)
        if rng.random() < .2: im = im[rng.sample(range(3), 3)]
        gain = torch.tensor([rng.uniform(.8, 1.2) for _ in range(3)], device=dev).view(3, 1, 1)
        out.append(((im * gain).clamp(1e-4, 1) ** rng.uniform(.7, 1.4)))
    return torch.stack(out)


def pictures(a, count, seed, each=32):
    """[count, 3, PICTURE, PICTURE] uint8, all kinds mixed; every batch of 32 is of one kind."""
    import torch
    dev, s, rng = a.device, PICTURE, random.Random(seed)
    gen = torch.Generator(dev).manual_seed(seed)
    found, out = load_photos(a.photos, PHOTOS), torch.empty(count, 3, s, s, dtype=torch.uint8, device=dev)
    leaf = 8 if a.quick else 90
    for k, i in enumerate(range(0, count, each)):
        n = min(each, count - i)
        grain, kind = noise(n, s, dev, gen, 5, 24, .9), k % 8
        if kind in (0, 4, 6): im = photo_crops(found, n, rng, dev)
        elif kind == 1: im = leaves(palette(noise(n, s, dev, gen), gen, dev), gen, dev, leaf, .03, .6, grain)
        elif kind == 2: im = landscape(gen, dev, n, s, grain)
        elif kind == 3: im = leaves(landscape(gen, dev, n, s, grain), gen, dev, leaf // 8, .08, .5, grain)
        elif kind == 5: im = leaves(palette(noise(n, s, dev, gen, 4, 2, .35), gen, dev), gen, dev, leaf // 6, .05, .7, grain)
        else:
            pages = [print_page(rng, s).to(dev) for _ in range((n + 3) // 4)]
            im = torch.stack([pages[j % len(pages)][rng.sample(range(3), 3)].roll(rng.randrange(s), 1 + j % 2) for j in range(n)])
        out[i:i + n] = (im.clamp(0, 1) * 255).round().byte()
    return out


# --------------------------------------------------------------------------------------------------------------- camera

_IN, _OUT, _PAN = ["zooms in", "zooming in", "moves closer"], ["zooms out", "zooming out", "moves away"], ["pans", "panning", "moves"]
CAMERA = dict(
    zoom_in=["camera zooms in", "the camera zooms in", "zoom in", "zooming in", "slow zoom in", "the camera moves closer"],
    zoom_out=["camera zooms out", "the camera zooms out", "zoom out", "zooming out", "slow zoom out", "the camera moves away"],
    **{f"pan_{d}": [f"camera pans {d}", f"the camera pans {d}", f"pan {d}", f"panning {d}", f"camera pans to the {d}" if d in ("left", "right")
                    else f"camera tilts {d}", f"the camera moves {d}"] for d in ("left", "right", "up", "down")},
    shake=["camera shakes", "the camera shakes", "shaking camera", "camera shake", "a shaking camera"],
    still=["camera stands still", "nothing moves", "a still picture", "a photo", "static camera"])
CAMERA_W = dict(zoom_in=1.2, zoom_out=1.2, pan_left=1, pan_right=1, pan_up=1, pan_down=1, shake=.8, still=.5)
WHAT = ["a photo", "a picture", "a landscape", "a photo of a dog", "a beautiful scene", "a city street", "a woman", "trees and sky"]


def camera_path(kind, w, h, rng):
    """What of a picture a clip shows: centre x, y and scale (picture pixels a clip's pixel), [3, FRAMES]."""
    u, one, room = np.linspace(0, 1, FRAMES), np.ones(FRAMES), PICTURE - 8
    widest = room / max(w, h)
    if kind in ("zoom_in", "zoom_out"):
        ratio = rng.uniform(1.3, 1.6)
        s = rng.uniform(max(.7, .8 * widest / 1.3), widest) * ratio ** -u
        if kind == "zoom_out": s = s[::-1]
    else: s = rng.uniform(.7, .95 * widest if kind in ("still", "shake") else .8 * widest) * one
    big = s.max()
    x, y = one * 0, one * 0
    go = min(rng.uniform(.22, .38) * min(w, h) * 1.2 * big, room - big * (w if kind in ("pan_left", "pan_right") else h))
    if kind == "pan_left": x = (.5 - u) * go
    elif kind == "pan_right": x = (u - .5) * go
    elif kind == "pan_up": y = (.5 - u) * go
    elif kind == "pan_down": y = (u - .5) * go
    elif kind == "shake":
        t, k = u * (FRAMES - 1) / base.FPS, .022 * w * big
        x, y = (sum(k * z * np.sin(6.28 * (rng.uniform(*f) * t + rng.random())) for z, f in ((.7, (1.2, 2)), (.5, (2, 3)))) for _ in range(2))
    for c, e in ((x, w), (y, h)):
        lo, hi = (s * e / 2 - c).max(), (PICTURE - s * e / 2 - c).min()
        c += rng.uniform(lo, hi) if hi > lo else (lo + hi) / 2
    return np.stack([x, y, s]).astype(np.float32)


def camera_caption(kind, rng):
    text = pick(rng, CAMERA[kind])
    k = rng.random()
    if k < .2: text = f"{pick(rng, WHAT)}, {text}"
    elif k < .3: text = f"{text}, {pick(rng, base.SUFFIX)}"
    if rng.random() < .3: text = text[0].upper() + text[1:]
    return text + ("." if rng.random() < .25 else "")


def make_camera(args):
    """A random camera move: its path and captions."""
    seed, w, h = args
    rng = random.Random(seed)
    kind = pick(rng, list(CAMERA_W), list(CAMERA_W.values()))
    return dict(path=camera_path(kind, w, h, rng), captions=[camera_caption(kind, rng) for _ in range(8)], motion=kind)


def film(images, path, w, h):
    """Pictures [b, 3, PICTURE, PICTURE] uint8 seen along paths [b, 3, T], [b, 3, T, h, w] in [0, 1]."""
    import torch, torch.nn.functional as F
    b, T = len(images), path.shape[2]
    x, y, s = path.view(b, 3, T, 1, 1).unbind(1)
    gx = x + s * (torch.arange(w, device=path.device) - (w - 1) / 2).view(1, 1, 1, w)
    gy = y + s * (torch.arange(h, device=path.device) - (h - 1) / 2).view(1, 1, h, 1)
    grid = torch.stack(torch.broadcast_tensors(gx, gy), -1) * (2 / PICTURE) - 1
    v = F.grid_sample(images.float() / 255, grid.view(b, T * h, w, 2), mode="bilinear", padding_mode="border", align_corners=False)
    return v.view(b, 3, T, h, w)


# ----------------------------------------------------------------------------------------------------- scenes, captions

def motion_caption(sc, rng):
    """What happens, for who sees the picture anyway."""
    choices = [m for m in base.MOTIONS[sc["motion"]] if m[0]] or [(["float", "hover"], [""], 1)]
    verbs, comps, _ = pick(rng, choices, [m[2] for m in choices])
    doing = (base._V[pick(rng, verbs)][0] + " " + pick(rng, comps)).strip()
    shape = base.SHAPES[sc["shape"][0]][0][sc["n"] - 1]
    who = "they are" if sc["n"] == 2 else "it is"
    thing = f"the {shape}" if sc["n"] == 1 or sc["same"] else "the shapes"
    text = pick(rng, [doing, f"{who} {doing}", f"{thing} {doing}"], [.6, .15, .25])
    return text[0].upper() + text[1:] if rng.random() < .3 else text


def scenes_of(count, seed, pool):
    """As base.make_scenes; captions 0 to 3 tell all, 4 to 7 only what moves."""
    out = base.make_scenes(count, seed, pool, SIZES)
    for sc in (s for group in out.values() for s in group):
        rng = random.Random(sc["seed"] + 1)
        sc["captions"] += [motion_caption(sc, rng) for _ in range(4)]
    return out


def cameras_of(count, seed, pool):
    out, k = {}, 0
    for w, h, share in SIZES:
        jobs = [(seed * 1000003 + 500000 + k + i, w, h) for i in range(max(8, round(count * share)))]
        k += len(jobs)
        out[w, h] = pool.map(make_camera, jobs, chunksize=250) if pool else [make_camera(j) for j in jobs]
    return out


def some(images, gen, n):
    import torch
    return images[torch.randint(len(images), (n,), device=images.device, generator=gen)]


def behind(images, gen, n, w, h):
    """A part of n pictures, [n, 3, h, w] in [0, 1]."""
    import torch, torch.nn.functional as F
    k = min(PICTURE / w, PICTURE / h)
    part = some(images, gen, n)[:, :, :int(h * k), :int(w * k)].float() / 255
    return F.interpolate(part, (h, w), mode="bilinear", antialias=True, align_corners=False)


def kinds_of_clips(a, images, scenes, cameras, gen):
    """What there is to train on: {kind: function (size, from, to) -> (clips [b, 3, T, h, w] in [0, 1], where objects are [b, tokens],
    captions)}. Kinds: a scene, the same before a photograph, and a camera's move."""
    import torch
    dev = a.device
    def scene(wh, i, j, over=False):
        part = scenes[wh][i:j]
        if over: part = scenes[wh][::-1][i:j]
        back = behind(images, gen, len(part), *wh) if over else None
        v, m = base.render(part, *wh, dev, i, mask=True, token=TOKEN, behind=back)
        return v, m, [s["captions"] if not over else s["captions"][4:] * 2 for s in part]
    def camera(wh, i, j):
        part = cameras[wh][i:j]
        v = film(some(images, gen, len(part)), torch.tensor(np.stack([c["path"] for c in part]), device=dev), *wh)
        n = ((FRAMES - 1) // 4 + 1) * (wh[0] // TOKEN) * (wh[1] // TOKEN)
        return v, torch.zeros(len(part), n, dtype=torch.bool, device=dev), [c["captions"] for c in part]
    return dict(scene=scene, over=lambda *k: scene(*k, over=True), camera=camera)


# ------------------------------------------------------------------------------------------------------------------ VAE

def new_vae(a):
    from diffusers import AutoencoderKLWan
    return AutoencoderKLWan(**{**VAE, **json.loads(a.vae_over)})


def load_vae(a):
    import torch
    vae = new_vae(a).to(a.device).eval()
    vae.load_state_dict({k: v.float() for k, v in torch.load(os.path.join(a.work, "vae.pt"), map_location=a.device).items()})
    return vae


def random_paths(b, T, w, h, dev):
    """Cameras that drift, zoom and turn pictures, for the VAE: as film takes them."""
    import torch
    r = lambda lo, hi: lo + (hi - lo) * torch.rand(b, 1, device=dev)
    t = torch.linspace(-.5, .5, T, device=dev) * (T - 1) / (FRAMES - 1)
    s = r(.6, 1.4) * torch.exp(r(-.5, .5) * t)
    move = (torch.rand(b, 1, device=dev) < .85).float()
    return torch.stack([c + move * r(-1, 1) * 140 * t for c in (r(.3, .7) * PICTURE, r(.3, .7) * PICTURE)] + [s], 1)


def phase_vae(a, notes, pool):
    import torch
    t0 = time.time()
    torch.manual_seed(SEED)
    random.seed(SEED)
    dev, (w, h) = a.device, SIZES[0][:2]
    sizes = [(w, h, 1.)]
    scenes = {(w, h): base.make_scenes(a.vae_clips, SEED + 1, pool, sizes)[w, h]}
    images = pictures(a, a.pictures, SEED)
    gen = torch.Generator(dev).manual_seed(SEED)
    kinds, n = kinds_of_clips(a, images, {k: [dict(s, captions=s["captions"] * 2) for s in v] for k, v in scenes.items()}, {}, gen), 16
    clips = torch.cat([(kinds["over" if (i // n) % 3 == 2 else "scene"]((w, h), i, i + n)[0] * 255).round().byte()
                       for i in range(0, a.vae_clips, n)])
    seen = film(some(images, gen, 8), random_paths(8, FRAMES, w, h, dev), w, h)
    val = torch.cat([clips[:8].float() / 127.5 - 1, seen * 2 - 1])
    log(phase="vae", clips=len(clips), pictures=len(images), prepare_s=time.time() - t0)
    base.patch_vae(a.vae_fast, dev == "cuda" and not a.no_compile)
    vae = new_vae(a).to(dev)
    if a.resume: vae.load_state_dict(torch.load(os.path.join(a.work, "vae.pt"), map_location=dev))
    def fill(v, shape):
        b, T, ch, cw = shape
        half = b // 2
        i = torch.randint(len(clips), (half,), device=dev)
        f, y, x = (random.randint(0, n) for n in (FRAMES - T, h - ch, w - cw))
        v[:half].copy_(clips[:, :, f:f + T, y:y + ch, x:x + cw][i]).div_(127.5).sub_(1)
        v[half:].copy_(film(some(images, None, b - half), random_paths(b - half, T, cw, ch, dev), cw, ch)).mul_(2).sub_(1)
    base.train_vae(a, notes, vae, fill, val, t0 + a.vae_seconds)


def unseen_clips(a, w, h):
    """Photographs that no phase trains on, with a camera that moves."""
    import torch
    found = [p[:, :PICTURE, :PICTURE] for p in load_photos(a.photos, UNSEEN)]
    rng = random.Random(3)
    path = torch.tensor(np.stack([camera_path(k, w, h, rng) for k in ("zoom_in", "pan_right")]), device=a.device)
    return film(torch.stack(found).to(a.device), path, w, h)


def phase_stats(a, notes, pool):
    """work/stats.json, and reconstructions of unseen clips by Diffusers' own path in float32."""
    import torch
    vae, dev, gen = load_vae(a), a.device, torch.Generator(a.device).manual_seed(SEED + 3)
    n = 8 if a.quick else 240
    kinds = kinds_of_clips(a, pictures(a, 8 if a.quick else 256, SEED + 3), scenes_of(n, SEED + 3, pool), cameras_of(n // 2, SEED + 3, pool), gen)
    wh, z = SIZES[0][:2], []
    base.patch_vae("")
    with torch.no_grad():
        for kind, share in (("scene", .5), ("over", .2), ("camera", .3)):
            z += [base.vae_encode(vae, kinds[kind](wh, i, i + 4)[0] * 2 - 1)[0] for i in range(0, max(4, int(.7 * share * n)), 4)]
        z = torch.cat(z)
        json.dump(dict(mean=z.mean((0, 2, 3, 4)).tolist(), std=z.std((0, 2, 3, 4)).tolist()), open(f"{a.work}/stats.json", "w"))
        rows, labels, ps = [], [], {}
        fresh = scenes_of(60, SEED + 77, None)
        for w, h, _ in SIZES:
            v = torch.cat([base.render(fresh[w, h][:2 if a.quick or (w, h) != wh else 5], w, h, dev, 5), unseen_clips(a, w, h)]) * 2 - 1
            r = torch.cat([vae.decode(vae.encode(q[None]).latent_dist.mode()).sample for q in v])
            ps[f"{w}x{h}"] = [round(base.psnr(r[i:i + 1], v[i:i + 1]), 2) for i in range(len(v))]
            if w == wh[0]:
                for i in range(len(v)):
                    rows += [base.to_u8(v[i] / 2 + .5), base.to_u8(r[i] / 2 + .5)]
                    labels += ["original", f"reconstruction, {ps[f'{w}x{h}'][i]} dB"]
    base.sheet(rows, labels, os.path.join(a.samples, "vae_reconstruction.png"), (0, 4, 16, 32))
    notes.add(psnr_unseen=ps, z_std=[z.std((0, 2, 3, 4)).min().item(), z.std((0, 2, 3, 4)).max().item()])
    from safetensors.torch import save_file
    save_file({k: v.detach().bfloat16().cpu().contiguous() for k, v in vae.state_dict().items()}, f"{a.work}/vae.safetensors", {"format": "pt"})


# ---------------------------------------------------------------------------------------------------------- transformer

def new_dit():
    from diffusers import WanTransformer3DModel
    return WanTransformer3DModel(**DIT)


def initial_dit(a):
    """work/dit.pt, else the second transformer of --start with new patches."""
    import torch
    from safetensors.torch import load_file
    dit, path = new_dit(), os.path.join(a.work, "dit.pt")
    if os.path.exists(path): dit.load_state_dict(torch.load(path, map_location="cpu"))
    else:
        old = load_file(f"{a.start}/transformer_2/diffusion_pytorch_model.safetensors")
        old = {k: v.float() for k, v in old.items() if not k.startswith(("patch_embedding", "proj_out"))}
        unknown = dit.load_state_dict(old, strict=False)
        assert not unknown.unexpected_keys and all(k.startswith(("patch_embedding", "proj_out")) for k in unknown.missing_keys)
        with torch.no_grad(): dit.proj_out.weight.mul_(.1); dit.proj_out.bias.zero_()
    return dit


def first_frame(wh, dev):
    """Which of a clip's tokens are of the first latent frame, [1, tokens, 1]."""
    import torch
    n = (wh[0] // TOKEN) * (wh[1] // TOKEN)
    return (torch.arange(n * ((FRAMES - 1) // 4 + 1), device=dev) < n).view(1, -1, 1)


@functools.cache
def out_order(dev):
    import torch
    return torch.tensor(base.out_order(DIT["out_channels"]), device=dev)


def velocity_loss(dit, blocks, x, e, s, given, text, bias, rope, first):
    """Squared error of each token's velocity, [b, tokens]. Of clips that are given their picture (given [b] is 1) the first latent
    frame is clean and its timestep 0, as WanImageToVideoPipeline does with expand_timesteps."""
    import torch
    sv = s.view(-1, 1, 1)
    clean = first & (given > 0).view(-1, 1, 1)
    t = (s * 1000).floor()
    with torch.autocast(x.device.type, torch.bfloat16, enabled=x.device.type == "cuda", cache_enabled=False):
        out = base.dit_forward(dit, blocks, torch.where(clean, x, (1 - sv) * x + sv * e), torch.stack([t * (given == 0), t], 1), text,
                               bias, rope, first)
    return (out.float() - (e - x).index_select(2, out_order(x.device))).square().mean(-1)


class Transformer(base.Expert):
    """The one transformer, for all noise levels. A batch has its kinds of clips at fixed places."""
    def initial(self):
        return initial_dit(self.a)

    def gradient(self, wh, blocks):
        """(fill, step): load a batch, and add its gradient."""
        import torch
        a, dev, B = self.a, self.a.device, self.a.batch
        data, rope, first = self.data[wh], base.rope_tables(self.dit, wh, self.a.device, 16), first_frame(wh, self.a.device)
        n = first.shape[1]
        parts = dict(camera=slice(0, B // 4), over=slice(B // 4, B * 3 // 8), scene=slice(B * 3 // 8, B))
        x, s, w, given = torch.zeros(B, n, 192, device=dev), torch.zeros(B, device=dev), torch.ones(B, n, device=dev), torch.ones(B, device=dev)
        tok = torch.zeros(B, TEXT_LEN - 1, dtype=torch.int32, device=dev)
        empty = torch.tensor([1] + [0] * (TEXT_LEN - 2), device=dev, dtype=torch.int32)
        grads = [q.grad for q in self.params]
        def fill():
            s.copy_(base.sigmas(B, 0., 1., dev, SHIFT))
            for kind, at in parts.items():
                z, ids, mask = data[kind]
                b = at.stop - at.start
                i = torch.randint(len(z), (b,), device=dev)
                if kind == "scene": given[at] = (torch.rand(b, device=dev) < .2).float()
                of = torch.rand(b, device=dev) * (4 + 4 * given[at])  # from text alone: only what tells all
                tok[at] = ids[i, of.long()]
                x[at] = z[i].float()
                w[at] = 1 + a.object_weight * mask[i]
            tok.copy_(torch.where(torch.rand(B, 1, device=dev) < .1, empty, tok))
            w.add_(a.first_weight * first[..., 0]).mul_(1 - first[..., 0] * given[:, None])
        def step():
            torch._foreach_zero_(grads)
            text, bias = base.encode_text(self.te, tok, self.buckets)
            d = velocity_loss(self.dit, blocks, x, torch.randn_like(x), s, given, text, bias, rope, first)
            loss = (w * d).sum() / w.sum()
            loss.backward()
            self.loss.add_(torch.stack([loss.detach(), d.detach().mean()]))
        return fill, step


def evaluate(a, dit, te, data):
    """Velocity loss of held-out clips at fixed noise levels with fixed noise: {what: {level: [all, on objects]}}, the first latent frame
    left out of clips that are given it."""
    import torch
    dev, wh, out = a.device, SIZES[0][:2], {}
    blocks, rope, first = base.plain_blocks(dit), base.rope_tables(dit, wh, dev, 16), first_frame(wh, dev)
    with torch.no_grad():
        for name, kind, given in (("text", "scene", 0.), ("picture", "scene", 1.), ("over", "over", 1.), ("camera", "camera", 1.)):
            x, ids, mask = (q[:48] for q in data[kind])
            text, bias = base.encode_text(te, ids[:, 0], base.position_buckets(te, dev))
            g, x, out[name] = torch.Generator(dev).manual_seed(1), x.float(), {}
            e = torch.randn(x.shape, device=dev, generator=g)
            for s in (.98, .9, .7, .4, .15):
                d = velocity_loss(dit, blocks, x, e, torch.full((len(x),), s, device=dev), torch.full((len(x),), given, device=dev), text,
                                  bias, rope, first)
                rest = ~first[..., 0].expand_as(d) if given else torch.ones_like(mask)
                out[name][s] = [round(d[q].mean().item(), 4) if q.any() else None for q in (rest, rest & mask)]
    return out


def token_ids(a, captions):
    """[N, 8, TEXT_LEN - 1] int32 of 8 captions each, as wan-tiny's tokenizer has them with its end mark."""
    import torch
    from tokenizers import Tokenizer
    tok = Tokenizer.from_file(f"{a.start}/tokenizer/tokenizer.json")
    ids = np.zeros((len(captions) * 8, TEXT_LEN - 1), np.int32)
    for k, e in enumerate(tok.encode_batch([c for cs in captions for c in cs])):
        e = e.ids if len(e.ids) < TEXT_LEN else e.ids[:TEXT_LEN - 2] + [1]
        ids[k, :len(e)] = e
    return torch.from_numpy(ids).view(-1, 8, TEXT_LEN - 1).to(a.device)


def encode_clips(a, vae, kinds, counts, end):
    """{size: {kind: (latents as normalised bfloat16 tokens [N, tokens, 192], ids [N, 8, TEXT_LEN - 1], where objects are [N, tokens])}};
    stops early at the time end, all kinds and sizes at the same share."""
    import torch
    dev, n = a.device, a.cache_batch
    st = json.load(open(os.path.join(a.work, "stats.json")))
    mean, std = (torch.tensor(st[k], device=dev).view(1, -1, 1, 1, 1) for k in ("mean", "std"))
    jobs = sorted((i / count, wh, kind, i, min(n, count - i)) for (wh, kind), count in counts.items() for i in range(0, count, n))
    got = {key: ([], [], []) for key in counts}
    for k, (_, wh, kind, i, b) in enumerate(jobs):
        if k >= len(counts) and time.time() > end: break
        with torch.no_grad():
            v, mask, captions = kinds[kind](wh, i, i + b)
            v = (v * 255).round() / 127.5 - 1
            with torch.autocast(dev, torch.bfloat16, enabled=dev == "cuda"): z = base.vae_encode(vae, v)[0]
            for q, part in zip(got[wh, kind], (base.to_tokens((z.float() - mean) / std, False).bfloat16(), mask, captions)): q.append(part)
        if k % 16 == 0 and dev == "cuda": torch.cuda.synchronize()
    data = {}
    for (wh, kind), (z, mask, captions) in got.items():
        data.setdefault(wh, {})[kind] = (torch.cat(z), token_ids(a, [c for cs in captions for c in cs]), torch.cat(mask))
    return data


def warm(a):
    """Compiles the blocks in a process of its own while clips are rendered: the trainer finds the result in the compiler's cache."""
    import torch
    t0, dit = time.time(), new_dit().to(a.device)
    blocks = base.compiled_blocks(a, dit)
    for wh in (SIZES[0][:2], SIZES[2][:2]):
        rope, first = base.rope_tables(dit, wh, a.device, 16), first_frame(wh, a.device)
        text = torch.randn(a.batch, TEXT_LEN, base.UMT5["d_model"], device=a.device, requires_grad=True)
        x, s = torch.randn(a.batch, first.shape[1], 192, device=a.device), torch.full((a.batch,), .5, device=a.device)
        velocity_loss(dit, blocks, x, x, s, s, text, torch.zeros(a.batch, TEXT_LEN, device=a.device), rope, first).mean().backward()
    log(phase="warm", s=time.time() - t0)


def check_forward(dit, te):
    """The training forward against WanTransformer3DModel.forward with a timestep for every token and 512 text tokens."""
    import torch
    g, wh = torch.Generator().manual_seed(3), (320, 192)
    first, ids = first_frame(wh, "cpu"), torch.zeros(2, TEXT_LEN - 1, dtype=torch.long)
    ids[0, :6], ids[1, :11] = torch.randint(3, 500, (6,), generator=g), torch.randint(3, 500, (11,), generator=g)
    with torch.no_grad():
        z, t = torch.randn(2, 48, 9, 12, 20, generator=g), torch.tensor([[0., 700.], [300., 300.]])
        text, bias = base.encode_text(te, ids, base.position_buckets(te, "cpu"))
        o = base.dit_forward(dit, base.plain_blocks(dit), base.to_tokens(z, False), t, text, bias, base.rope_tables(dit, wh, "cpu", 16), first)
        full = torch.cat([text[:, :-1], text.new_zeros(2, base.PAD_TO - TEXT_LEN + 1, text.shape[2])], 1)
        r = dit(hidden_states=z, timestep=torch.where(first[..., 0], t[:, :1], t[:, 1:]), encoder_hidden_states=full, return_dict=False)[0]
    return dict(forward_diff=(o - base.to_tokens(r, True)).abs().max().item(), of=r.abs().max().item())


def phase_joint(a, notes, pool):
    import subprocess, torch
    t0 = time.time()
    if os.path.exists(f"{a.work}/dit.safetensors"): base.collect(a, ("dit", "te"))  # goes on from there
    end, dev, cuda = t0 + a.seconds, a.device, a.device == "cuda"
    torch.manual_seed(SEED + 50 + a.seed)
    random.seed(SEED)
    if cuda:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", os.path.abspath(os.path.join(a.work, "inductor")))
        torch.backends.cudnn.benchmark = True
        if not a.no_compile: side = subprocess.Popen([sys.executable, os.path.abspath(__file__), "warm"] + sys.argv[2:])

    # clips
    vae, gen = load_vae(a), torch.Generator(dev).manual_seed(SEED + a.seed)
    images, seed = pictures(a, a.pictures, SEED + 4 + a.seed), SEED + 200 + 1000 * a.seed
    share = dict(scene=.58, over=.14, camera=.28)
    counts = {((w, h), kind): max(8, round(a.clips * part * s)) for w, h, part in SIZES for kind, s in share.items()}
    scenes, cameras = scenes_of(round(a.clips * .75), seed, pool), cameras_of(round(a.clips * .3), seed, pool)
    few = {(SIZES[0][:2], kind): 8 if a.quick else 48 for kind in share}
    log(phase="joint", scenes_s=time.time() - t0)
    base.patch_vae(a.vae_fast if cuda else "", cuda and not a.no_compile)
    fresh = kinds_of_clips(a, pictures(a, 64 if not a.quick else 8, SEED + 5000), scenes_of(200, SEED + 77, pool), cameras_of(100, SEED + 77, pool), gen)
    val = encode_clips(a, vae, fresh, few, math.inf)[SIZES[0][:2]]
    data = encode_clips(a, vae, kinds_of_clips(a, images, scenes, cameras, gen), counts, t0 + a.cache_seconds)
    del vae, images, scenes, cameras, fresh
    base.patch_vae("")
    log(phase="joint", clips={f"{w}x{h}": {k: len(q[0]) for k, q in d.items()} for (w, h), d in data.items()}, render_encode_s=time.time() - t0)
    if cuda: torch.cuda.empty_cache()

    # models
    te = load_text(a)
    info = dict(checks=check_forward(initial_dit(a), te))
    te.to(dev)
    lrs = {k: torch.zeros((), device=dev) for k in ("muon", "adam", "text")}
    words = base.TextTrainer(a, te, lrs["text"])
    model = Transformer(a, "dit", te, data, base.position_buckets(te, dev), lrs)
    info.update(eval_before=evaluate(a, model.dit, te, val))
    log(phase="joint", **info)
    t1 = time.time()
    if cuda and not a.no_compile: side.wait()
    blocks, run = base.compiled_blocks(a, model.dit), {}
    for wh in data:
        fill, step = model.gradient(wh, blocks)
        fill()
        run[wh] = (fill, base.captured(a, str(wh), step, 3, fill))
    def update():
        model.update()
        words.update()
    update = base.captured(a, "update", update)
    model.loss.zero_(); words.flat.zero_()
    log(phase="joint", prepare_s=time.time() - t1, gb=torch.cuda.max_memory_allocated() / 1e9 if cuda else 0)

    # training
    rng, groups, share, marks = random.Random(SEED), list(data), [x[2] for x in SIZES], []
    t1, tw, done = time.time(), time.time(), 0
    end -= a.spare
    while True:
        if done % 25 == 0:
            if cuda: torch.cuda.synchronize()
            p = (time.time() - t1) / max(1., end - t1)
            if p >= 1: break
            k = base.rate(p, a.hold)
            lrs["muon"].fill_(a.muon_lr * k); lrs["adam"].fill_(a.lr * k); lrs["text"].fill_(a.text_lr * k)
        fill, step = run[pick(rng, groups, share)]
        words.flat.zero_()
        fill(); step(); update()
        done += 1
        if done % a.log_every == 0:
            l = (model.loss / a.log_every).tolist()
            marks.append((done, round(l[0], 4), round(l[1], 4)))
            log(phase="joint", step=done, p=p, loss=l[0], plain=l[1], ms=(time.time() - tw) / a.log_every * 1e3)
            model.loss.zero_()
            tw = time.time()
    model.ema.store(); words.store()
    model.save(); words.save()
    base.collect(a, ("dit", "te"))
    info.update(steps=done, seconds=time.time() - t1, losses=marks, eval=evaluate(a, model.dit, te, val),
                clips={f"{w}x{h}": {k: len(q[0]) for k, q in d.items()} for (w, h), d in data.items()})
    notes.add(**{f"joint_{k}": v for k, v in info.items()})


def load_text(a):
    """The text encoder: work/te.pt, else that of --start."""
    import torch
    from safetensors.torch import load_file
    path = os.path.join(a.work, "te.pt")
    sd = torch.load(path, map_location="cpu") if os.path.exists(path) else load_file(f"{a.start}/text_encoder/model.safetensors")
    te = base.new_text(sd["shared.weight"].shape[0])
    te.load_state_dict({k: v.float() for k, v in sd.items() if k != "encoder.embed_tokens.weight"}, strict=False)
    assert te.encoder.embed_tokens.weight is te.shared.weight
    return te


# ------------------------------------------------------------------------------------------------------ export and sample

def phase_export(a, notes, pool):
    import shutil, torch
    base.write_index(a.out, ("transformer",), SHIFT, boundary_ratio=None, expand_timesteps=True)
    base.write_vae(a, VAE, torch.bfloat16)
    base.write_transformer(a, "dit", "transformer", DIT)
    base.write_text_encoder(a)
    shutil.copytree(f"{a.start}/tokenizer", f"{a.out}/tokenizer", dirs_exist_ok=True)
    w, h, _ = SIZES[0]
    base.write_json(f"{a.out}/gst-wan.json", dict(width=w, height=h, num_frames=FRAMES, framerate=f"{base.FPS}/1", steps=16, guidance_scale=1.5))
    base.note_sizes(a, notes)


def unpack(a):
    """Work files from an exported directory."""
    import torch
    from safetensors.torch import load_file
    cfg = json.load(open(f"{a.out}/vae/config.json"))
    base.write_json(f"{a.work}/stats.json", dict(mean=cfg["latents_mean"], std=cfg["latents_std"]))
    for name, part in dict(vae="vae/diffusion_pytorch_model", dit="transformer/diffusion_pytorch_model", te="text_encoder/model").items():
        torch.save({k: v.float() for k, v in load_file(f"{a.out}/{part}.safetensors").items()}, f"{a.work}/{name}.pt")


TEXTS = ["a red circle sliding from left to right on a blue background", "a yellow star spinning at night", "a pink heart bouncing on a gray background",
         "a green triangle falling on a white background", "a white cross drifting to the left at sunset", "a cyan ring moving to the right in the desert",
         "a red circle and a blue square rising on a gray background", "two big green squares growing on a pink background",
         "a purple heart bouncing on a green background", "an orange ball bouncing over a grassy field"]
MOVES = ["moving to the right", "moving to the left", "bouncing", "spinning", "growing", "shrinking", "orbiting", "falling"]
CAMERAS = ["camera zooms in", "camera zooms out", "camera pans left", "camera pans right", "camera pans up", "camera pans down", "camera shakes", ""]


def pipelines(a):
    """By text and by picture, of the same parts."""
    import torch
    from diffusers import WanImageToVideoPipeline, WanPipeline
    text = WanPipeline.from_pretrained(a.out, torch_dtype=torch.float32).to(a.device)
    parts = {k: v for k, v in text.components.items() if k in ("tokenizer", "text_encoder", "vae", "scheduler", "transformer")}
    picture = WanImageToVideoPipeline(**parts, image_encoder=None, image_processor=None, expand_timesteps=True)
    for p in (text, picture): p.set_progress_bar_config(disable=True)
    return text, picture


def phase_sample(a, notes, pool):
    import torch
    from PIL import Image
    t0 = time.time()
    text, picture = pipelines(a)
    w, h, _ = SIZES[0]
    def make(prompt, seed, image=None, w=w, h=h, steps=a.steps, guidance=a.guidance):
        more = dict(image=Image.fromarray(image)) if image is not None else {}
        v = (text if image is None else picture)(
            prompt=prompt, negative_prompt="", height=h, width=w, num_frames=FRAMES, num_inference_steps=steps, guidance_scale=guidance,
            output_type="np", generator=torch.Generator("cpu").manual_seed(seed), **more).frames[0]
        return (v * 255).round().astype(np.uint8)
    def sheet(name, jobs):
        if a.quick: jobs = jobs[:1]
        base.sheet([make(p, s, *more) for p, s, *more in jobs], [f"{p!r} seed {s}" for p, s, *_ in jobs], f"{a.samples}/{name}.png")
        log(phase="sample", sheet=name, s=time.time() - t0)
    frame = lambda v: base.to_u8(v)[0]
    dev = a.device
    gen = torch.Generator(dev).manual_seed(7)
    fresh = [s for s in scenes_of(100, SEED + 78, None)[w, h] if s["n"] == 1][:8]
    drawn = [frame(v) for v in base.render(fresh, w, h, dev, 1)]
    images = pictures(a, 64 if not a.quick else 8, SEED + 6000, 8)
    over = [frame(v) for v in base.render(fresh[:4], w, h, dev, 1, behind=behind(images, gen, 4, w, h))]
    photos = [np.asarray(Image.fromarray(q[:, :PICTURE * 3 // 5].permute(1, 2, 0).numpy()).resize((w, h), Image.LANCZOS))
              for q in (p[:, :, :PICTURE] for p in load_photos(a.photos, {**UNSEEN, "astronaut": "png", "rocket": "jpg"}))]
    sheet("text", [(p, 1 + i) for i, p in enumerate(TEXTS)])
    sheet("picture", [(m, 1 + i, drawn[i % 8]) for i, m in enumerate(MOVES)] + [(m, 2, over[i % 4]) for i, m in enumerate(MOVES[:4])])
    sheet("camera", [(c, 1, photos[i % 2]) for i, c in enumerate(CAMERAS)] + [(c, 2, photos[2 + i % 2]) for i, c in enumerate(CAMERAS[:4])])
    sheet("sizes", [(TEXTS[0], 1, None, 192, 320), (TEXTS[2], 1, None, 256, 256), ("camera zooms in", 1, photos[0], 192, 320),
                    ("camera pans right", 1, photos[1], 256, 256)])
    notes.add(sample_s=time.time() - t0)


# ------------------------------------------------------------------------------------------------------------------ main

def preview(a):
    """Sheets of the pictures and of the training clips."""
    import torch
    torch.set_num_threads(1)
    gen = torch.Generator(a.device).manual_seed(1)
    images = pictures(a, 8 * a.clips, SEED, a.clips)
    base.sheet([base.to_u8(images[i::8][:5].float().permute(1, 0, 2, 3) / 255) for i in range(8)] if a.clips >= 5 else
               [base.to_u8(images.float().permute(1, 0, 2, 3) / 255)], [f"pictures {i}" for i in range(8 if a.clips >= 5 else 1)],
               os.path.join(a.samples, "pictures.png"), range(min(5, a.clips) if a.clips >= 5 else len(images)))
    kinds = kinds_of_clips(a, images, scenes_of(20, SEED + a.seed, None), cameras_of(20, SEED + a.seed, None), gen)
    rows, labels = [], []
    for kind, n in (("scene", 2), ("over", 3), ("camera", 8)):
        v, _, captions = kinds[kind](SIZES[0][:2], 0, n)
        rows += [base.to_u8(c) for c in v]
        labels += [f"{kind}: {c[0]} | {c[4]}" for c in captions]
    base.sheet(rows, labels, os.path.join(a.samples, "training_clips.png"))


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("what", choices="all unpack preview vae stats joint warm export sample".split())
    ap.add_argument("--work", default="work"); ap.add_argument("--out", default=os.path.join(HERE, "wan-tiny-ti2v"))
    ap.add_argument("--start", default=os.path.join(HERE, "wan-tiny"), help="whose tokenizer, text encoder and blocks it begins with")
    ap.add_argument("--photos", help="a folder with scikit-image's photographs; default: that of the package")
    ap.add_argument("--samples", default="samples"); ap.add_argument("--device", default="cuda"); ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--pictures", type=int, default=2048)
    ap.add_argument("--vae-seconds", type=float, default=200); ap.add_argument("--vae-clips", type=int, default=768)
    ap.add_argument("--vae-stages", default=".4,16,9,128,128 .75,8,17,160,192 1,4,33,192,320",
                    help="until (share of the time), batch, frames, height, width")
    ap.add_argument("--vae-lr", type=float, default=1.5e-3); ap.add_argument("--kl", type=float, default=2e-4)
    ap.add_argument("--vae-fast", default="conv2d", choices=["", "conv3d", "conv2d"]); ap.add_argument("--vae-over", default="{}")
    ap.add_argument("--resume", action="store_true", help="vae: go on from work/vae.pt")
    ap.add_argument("--clips", type=int, default=15000)
    ap.add_argument("--seconds", type=float, default=260, help="joint: from start to end, rendering and encoding included")
    ap.add_argument("--cache-seconds", type=float, default=85, help="of these: to render and encode, from the start")
    ap.add_argument("--spare", type=float, default=6, help="of these: to evaluate and save at the end")
    ap.add_argument("--cache-batch", type=int, default=32); ap.add_argument("--batch", type=int, default=128)
    ap.add_argument("--lr", type=float, default=1e-3); ap.add_argument("--muon-lr", type=float, default=1.5e-3)
    ap.add_argument("--text-lr", type=float, default=4e-4)
    ap.add_argument("--hold", type=float, default=.3, help="share of the time before the learning rates begin to fall")
    ap.add_argument("--object-weight", type=float, default=3.); ap.add_argument("--first-weight", type=float, default=1.)
    ap.add_argument("--steps", type=int, default=16, help="sample"); ap.add_argument("--guidance", type=float, default=1.5)
    ap.add_argument("--no-graph", action="store_true"); ap.add_argument("--no-compile", action="store_true")
    ap.add_argument("--quick", action="store_true", help="little and small of everything, to see that it runs")
    ap.add_argument("--log-every", type=int, default=250)
    a = ap.parse_args()
    if a.quick:
        global SIZES, PICTURE
        SIZES, PICTURE = [(96, 64, .7), (64, 96, .15), (64, 64, .15)], 160
    if not a.photos:
        import skimage
        a.photos = os.path.join(os.path.dirname(skimage.__file__), "data")
    for d in (a.work, a.samples): os.makedirs(d, exist_ok=True)
    if a.what in ("preview", "warm", "unpack"): return dict(preview=preview, warm=warm, unpack=unpack)[a.what](a)
    notes, t0 = base.Notes(a.work), time.time()
    pool = None
    if a.what in ("all", "vae", "stats", "joint"):
        import multiprocessing as mp  # before CUDA is touched
        pool = mp.get_context("fork").Pool(min(14, os.cpu_count()))
    if a.device == "cuda":
        import torch
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    phases = dict(vae=phase_vae, stats=phase_stats, joint=phase_joint, export=phase_export, sample=phase_sample)
    for what, phase in phases.items():
        if a.what in (what, "all"): phase(a, notes, pool)
    notes.add(total_s=time.time() - t0)


if __name__ == "__main__":
    main()
