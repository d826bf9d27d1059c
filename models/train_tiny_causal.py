#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Train wan-tiny-causal: wan-tiny made endless. One causal transformer that makes three latent frames at a time in four
steps, from a cache of the keys and values of the last twelve, and follows a prompt that changes as it plays.

It starts from the low-noise expert of wan-tiny, whose VAE, tokenizer and text encoder it shares unchanged. The rules are
Self-Forcing's and LongLive's: chunks of 3 latent frames, a window of 12 of which the first 3 of the stream are kept for
ever, time positions by place in the cache, x0-renoise steps at t = 1000, 937.5, 833.3 and 625, no guidance.

Phases:
  train   renders and encodes endless clips, then
          stage 1 (--teach-seconds): teacher forcing. Every chunk is denoised after clean chunks, of which the cache would
              keep the same: one pass over clean and noisy chunks does all of them                        work/teacher
          stage 2 and 3 (--distill-seconds): the four steps of the sampler learn what many steps of stage 1's network
              give, first after clean chunks, then more and more after chunks of the student's own, with their errors
                                                                                                           work/causal
          With 0 seconds a stage is left out, and its result is read from --work.
  decoder the VAE's decoder of the base model, in place, on long clips with changes of the scene (--vae-seconds)
  judge   rollouts of --chunks chunks from work/NAME (--net), with and without changes of the prompt, scored by what can be
          measured in the pictures, as are rendered clips, which show the judge's own faults; contact sheets in --samples
  export  the Diffusers directory (bfloat16), and with --original the same weights as a torch file with the names of
          Self-Forcing's, to test loaders

  for phase in train judge export; do python3 train_tiny_causal.py $phase --work work; done
Other commands: check (the training pass against a cache), preview (training clips as a sheet), smoke (all, tiny).
Needs what train_tiny_wan.py needs. README.md has the commands and figures of the runs that made the committed model.
"""
import argparse, copy, json, math, os, random, subprocess, sys, time
from typing import NamedTuple
import numpy as np
import train_tiny_wan as T

CHUNK, WINDOW = 3, 12  # latent frames; the sink is the first chunk
KEEP = WINDOW // CHUNK  # chunks in the cache, the one in work included
CHUNKS = 7  # of a training sample
LATENTS, FRAMES = 25, 97  # of a rendered clip
SINK_FRAMES = 9
LONG = 177  # frames that train the decoder: more than it looks back
SIZE = (160, 96)
SHIFT = 5.0
LEVELS = (1., .9375, 5 / 6, .625)  # the noise levels of the sampler's steps: t / 1000
PERIOD = T.FRAMES - 1  # frames in which a wan-tiny clip runs its course
TOKENS = CHUNK * SIZE[0] * SIZE[1] // 256  # of a chunk
GUESSES = 4  # at most, of the student, one after the other, before what it learns behind
NEVER = 99  # border of a clip without a change

# --------------------------------------------------------------------------------------------------- endless scenes

WIDE, HIGH = ("right", "left", "zigzag"), ("up", "down")
STILL = ("float", "spin", "pulse")


def endless(shown=0, start=0):
    """train_tiny_wan.path for motions that go on for ever, first shown in frame `shown`, or begun `start` frames before: the
    scene's frames, and after them SINK_FRAMES that show the beginning. A scene begins in the middle, always at the same point
    of its motion: how the first frames look should follow from the prompt, because four steps from noise cannot choose
    between many places, and paint some of each."""
    def path(motion, n, slot, ax, ay, r, rng, frames):
        grows = motion in ("grow", "shrink")  # these end, and hold
        f = np.concatenate([np.arange(frames) - shown + (start / 8 if grows else start), np.arange(SINK_FRAMES)])
        u = f / PERIOD
        wide = motion in WIDE
        lane = (slot - .5) * (ay if wide else 1.1 * ax) if n == 2 else rng.uniform(-.1, .1) * (ay if wide else ax)
        lx, ly = (0., lane) if wide else (lane, rng.uniform(-.05, .05) * ay)
        one = np.ones(len(u))
        x, y, s, a = lx * one, ly * one, r * one, rng.uniform(-.08, .08) * one
        ex, ey = .62 * (ax - .6 * r), .85 * (ay - .6 * r)
        if motion in ("right", "zigzag"): x = 2 * ex * u
        elif motion == "left": x = -2 * ex * u
        elif motion == "up": y = -2 * ey * u
        elif motion == "down": y = 2 * ey * u
        elif motion == "bounce":
            floor = ay - 1.1 * r
            hop = np.abs(np.cos(np.pi * rng.uniform(1.3, 1.6) * u))
            y = floor - rng.uniform(.5, .75) * (floor + ay - 1.1 * r) * hop
        elif motion == "spin": a = a + 2 * np.pi * rng.uniform(.55, .75) * u
        elif motion == "orbit":
            w = 2 * np.pi * (rng.uniform(.6, .75) * u + .5 * (1 - slot))
            x, y = np.cos(w) * min(.72, ax - 1.25 * r), np.sin(w) * min(.5, ay - 1.2 * r)
        elif motion == "grow": s = r * (.35 + .95 * u.clip(0, 1))
        elif motion == "shrink": s = r * (1.3 - .95 * u.clip(0, 1))
        elif motion == "pulse": s = r * (1 + .28 * np.sin(2 * np.pi * rng.uniform(1.3, 1.7) * u))
        elif motion == "float": y = ly + .07 * np.sin(2 * np.pi * u)
        if motion == "zigzag":
            tri = 2 * np.abs(2 * ((rng.uniform(1.4, 1.8) * u + .25) % 1) - 1) - 1
            y = ly + tri * (.22 * ay if n == 2 else .34 * ay)
        return np.stack([x, y, s, a], 0).astype(np.float32)
    return path


def around(sc):
    """Lets what glides come back on the other side: paths without end have no picture to leave."""
    ax, ay = (v / min(SIZE) for v in SIZE)
    period = (2 * ax if sc["motion"] in WIDE else 1e9, 2 * ay if sc["motion"] in HIGH else 1e9)
    for o in sc["objs"]: o["period"] = period
    return sc


def change(a, border, path, rng):
    """Scene a with one attribute changed: what changes is in the same place, and moves on as before."""
    b = copy.deepcopy(a)
    what = T.pick(rng, ["color", "shape", "shape", "bg", "motion"])
    if what == "bg" and a["bg"] != "solid": what = "color"
    if what == "bg":
        b["bgcolor"] = T.pick(rng, [c for c in T.BACK if c != a["bgcolor"]])
        b["bgrgb"] = np.array(T.BACK[b["bgcolor"]], np.float32)
    elif what == "motion":
        new = b["motion"] = T.pick(rng, [m for m in (*WIDE, *HIGH, *STILL, "bounce") if m != a["motion"]])
        axes, f = [v / min(SIZE) for v in SIZE], 4 * border - 3
        for slot, o in enumerate(b["objs"]):
            x, y, r, _ = (float(v) for v in o["path"][:, f])
            p = o["path"] = path(new, b["n"], slot, *axes, r, rng, FRAMES)
            x, y = ((v + h) % (2 * h) - h for v, h in zip((x, y), axes))
            inside = [float(np.clip(v, min(0, r - h), max(0, h - r))) for v, h in zip((x, y), axes)]
            p[0] += (x if new in WIDE else inside[0]) - p[0, f]
            if new not in ("bounce", "zigzag"): p[1] += (y if new in HIGH else inside[1]) - p[1, f]
        around(b)
    else:
        names = list(T.OBJ) if what == "color" else T.SHAPE_IDS
        new = [T.pick(rng, [c for c in names if c != x]) for x in a[what]]
        b[what] = [new[0]] * a["n"] if a["same"] else new
        for o, x in zip(b["objs"], b[what]): o[what] = np.array(T.OBJ[x], np.float32) if what == "color" else T.SHAPE_IDS.index(x)
    b["captions"] = [T.caption(b, rng) for _ in range(4)]
    return b


def held_out(a, b):
    """Changes never shown in training (to test that they compose)."""
    pairs = lambda s: set(zip(s["color"], s["shape"]))
    return ("red", "circle") in pairs(a) and ("blue", "square") in pairs(b)


def permitted(s):
    return all(T.allowed(c, k, s["motion"], s["bg"], s["bgcolor"]) for c, k in zip(s["color"], s["shape"]))


class Clip(NamedTuple):
    scene: dict
    later: bool = False  # it is shown after a while: its own first frames are not the scene's
    changed: dict = None  # the scene that it changes to
    border: int = NEVER  # in latent frames


def make_clip(args):
    seed, share = args
    rng = random.Random(seed * 7 + 1)
    later = rng.random() < .35
    make = lambda k, p: around(T.make_scene((seed * 2 + k, *SIZE, FRAMES), p))
    a = make(0, endless(0, rng.uniform(64, 4000) if later else 0))
    if rng.random() >= share: return Clip(a, later)
    border = CHUNK * (2 if rng.random() < .6 else rng.randint(1, 6))  # most where both scenes are long enough for Batch.fill
    whole = rng.random() < .5
    p = endless(4 * border - 3)
    for k in range(1, 1000):
        b = make(10 ** 9 + k * 10 ** 7, p) if whole else change(a, border, p, rng)
        if permitted(b) and not held_out(a, b): return Clip(a, later, b, border)


def cut(scenes, part):
    """The scenes with their paths cut to a part of the frames."""
    return [dict(s, objs=[dict(o, path=o["path"][:, part]) for o in s["objs"]]) for s in scenes]


def render(clips, dev, seed):
    """Clips to (video [B, 3, FRAMES, H, W] in [-1, 1], the scene's first frames, objects' tokens [B, LATENTS, n])."""
    a = [c.scene for c in clips]
    v, m = T.render(cut(a, slice(FRAMES)), *SIZE, dev, seed, mask=True)
    first = T.render(cut(a, slice(FRAMES, None)), *SIZE, dev, seed)
    m = m.view(len(a), LATENTS, -1)
    at = [i for i, c in enumerate(clips) if c.changed]
    if at:
        w, k = T.render(cut([clips[i].changed for i in at], slice(FRAMES)), *SIZE, dev, seed, mask=True)
        for j, i in enumerate(at):
            border = clips[i].border
            v[i, :, 4 * border - 3:] = w[j, :, 4 * border - 3:]
            m[i, border:] = k.view(len(at), LATENTS, -1)[j, border:]
    as_stored = lambda x: (x * 255).round() / 127.5 - 1
    return as_stored(v), as_stored(first), m


# ------------------------------------------------------------------------------------------------------------- data

class Texts:
    """wan-tiny's tokenizer and text encoder, as train_tiny_wan.encode_text gives texts to a transformer."""
    def __init__(self, a):
        import torch
        from tokenizers import Tokenizer
        self.tok = Tokenizer.from_file(f"{a.base}/tokenizer/tokenizer.json")
        self.te = T.new_text(self.tok.get_vocab_size()).to(a.device)
        self.te.load_state_dict(torch.load(f"{a.work}/te.pt", map_location=a.device), strict=False)
        self.dev = a.device

    def __call__(self, texts):
        """([N, TEXT_LEN, text_dim], biases of the tokens [N, TEXT_LEN])."""
        import torch
        ids = np.zeros((len(texts), T.TEXT_LEN - 1), np.int64)
        for row, e in zip(ids, self.tok.encode_batch(texts)):
            e = e.ids[:-1][:T.TEXT_LEN - 2] + [1]
            row[:len(e)] = e
        ids, buckets = torch.from_numpy(ids).to(self.dev), T.position_buckets(self.te, self.dev)
        with torch.no_grad(): parts = [T.encode_text(self.te, p, buckets) for p in ids.split(2048)]
        return tuple(torch.cat(p) for p in zip(*parts))


class Clips:
    """Encoded clips on the device. z [N, LATENTS, n, 64], sink [N, CHUNK, n, 64], mask [N, LATENTS, n], border and later [N], and the
    rows of text and bias of each clip's captions before and after its border [N, 2, 4]; row 0 is the empty prompt."""
    def __init__(self, a, clips, texts, seconds, seed):
        import torch
        dev, n, t0 = a.device, a.cache_batch, time.time()
        vae, st = T.load_vae(a), json.load(open(f"{a.work}/stats.json"))
        mean, std = (torch.tensor(st[k], device=dev).view(1, -1, 1, 1, 1) for k in ("mean", "std"))
        T.patch_vae(a.vae_fast if dev == "cuda" else "", dev == "cuda" and not a.no_compile)
        def encode(v):
            with torch.autocast(dev, torch.bfloat16, enabled=dev == "cuda"): z = T.vae_encode(vae, v)[0]
            return T.to_tokens((z.float() - mean) / std, False).bfloat16().unflatten(1, (-1, TOKENS // CHUNK))
        got = []
        for i in range(0, len(clips), n):
            if got and time.time() - t0 > seconds: break
            with torch.no_grad():
                v, first, m = render(clips[i:i + n], dev, seed + i)
                got.append((encode(v), encode(first), m))
            if dev == "cuda": torch.cuda.synchronize()
        T.patch_vae("")
        self.z, self.sink, self.mask = (torch.cat(p) for p in zip(*got))
        clips = clips[:len(self.z)]
        self.border = torch.tensor([c.border for c in clips], device=dev)
        self.later = torch.tensor([c.later for c in clips], device=dev)
        self.text, self.bias = texts([""] + [t for c in clips for s in (c.scene, c.changed or c.scene) for t in s["captions"]])
        self.rows = 1 + torch.arange(len(clips) * 8, device=dev).view(-1, 2, 4)
        plain = [i for i, c in enumerate(clips) if not c.changed and c.scene["bg"] == "solid" and c.scene["n"] == 1]
        T.log(phase="clips", clips=len(clips), render_encode_s=time.time() - t0, objects=self.mask.float().mean().item())
        self.std = self.z[plain].float().std().item() if plain else 0.


class Batch:
    """A batch of training samples of CHUNKS chunks, in tensors that stay where they are (for a CUDA graph)."""
    def __init__(self, a, clips, size):
        import torch
        dev = a.device
        self.clips, self.size, self.a = clips, size, a
        self.x = torch.zeros(size, CHUNKS, TOKENS, 64, device=dev)
        self.weight = torch.zeros(size, CHUNKS, TOKENS, device=dev)
        self.text = torch.zeros(size, 2, T.TEXT_LEN, T.UMT5["d_model"], device=dev)
        self.bias = torch.zeros(size, 2, T.TEXT_LEN, device=dev)
        self.told, self.tells = (torch.zeros(size, CHUNKS, dtype=torch.bool, device=dev) for _ in range(2))
        self.own = torch.zeros(size, dtype=torch.long, device=dev)
        self.alone = torch.zeros(size, dtype=torch.bool, device=dev)
        self.sigma = torch.zeros(size, CHUNKS, a.copies, device=dev)
        self.degraded = 0.  # share of the samples whose context is the student's own

    def fill(self, at=None):
        """Random clips, or these from their start."""
        import torch
        c, B, dev = self.clips, self.size, self.x.device
        i = torch.randint(len(c.z) - self.a.held, (B,), device=dev) if at is None else at
        rand = lambda: torch.rand(B, device=dev)
        border, changes = c.border[i], c.border[i] < NEVER
        # Where the window behind the sink begins: at once, or farther on, at a chunk's border if the prompt will change.
        begin = torch.where(changes, CHUNK * (1 + (rand() * 2).long()), CHUNK + (rand() * 5).long())
        begin = torch.where((rand() < .5) & (at is None), begin, CHUNK)
        # Or all but the chunk before the change is forgotten, as `recache` does.
        alone = changes & (border == 2 * CHUNK) & (rand() < .8) & (at is None)
        begin = torch.where(alone, 2 * CHUNK, begin)
        later = c.later[i] & ~alone
        far = (later | (begin > CHUNK)) & ~alone
        f = torch.arange(CHUNKS * CHUNK, device=dev)
        f = torch.where((f < CHUNK) & ~alone[:, None], f, f - CHUNK + begin[:, None])
        x, m = c.z[i[:, None], f].float(), c.mask[i[:, None], f].float()
        x[:, :CHUNK] = torch.where(later.view(-1, 1, 1, 1), c.sink[i].float(), x[:, :CHUNK])
        m[:, :CHUNK] *= ~later.view(-1, 1, 1)  # where its objects are is not known
        self.x.copy_(x.flatten(1, 2).view_as(self.x))
        # Chunks from `new` on are of the second scene. Half of the time what came before was computed anew for its prompt,
        # but for the sink of a full window.
        chunk = torch.arange(CHUNKS, device=dev)
        new = torch.where(changes, (border - begin).div(CHUNK, rounding_mode="floor").clamp(min=0) + 1, CHUNKS)
        self.alone.copy_(alone)
        recached = alone | (changes & (rand() < .5) & (at is None))
        old = chunk < new[:, None]
        self.tells.copy_(~old)
        kept = (chunk == 0) & (far | (new > KEEP))[:, None]
        self.told.copy_(~old | (recached[:, None] & ~kept))
        # Not trained on: a full window's sink with fewer frames behind it, and old chunks under the new prompt.
        skip = (chunk > 0) & ((far[:, None] & (chunk < KEEP - 1)) | (recached[:, None] & old)) | ((chunk == 0) & alone[:, None])
        w = 1 + self.a.object_weight * m.flatten(1, 2).view_as(self.weight)
        w[:, 0, :TOKENS // CHUNK] += self.a.first_weight
        w *= 1 + self.a.change_weight * ((chunk == new[:, None]) & changes[:, None])[..., None]
        self.weight.copy_(w * ~skip[..., None])
        j = torch.randint(4, (B, 2), device=dev)
        row = c.rows[i[:, None], torch.arange(2, device=dev), j]
        row = row.masked_fill(((rand() < .1) & ~changes & (at is None))[:, None], 0)
        self.text.copy_(c.text[row]); self.bias.copy_(c.bias[row])
        n = self.sigma.numel()
        u = (torch.randperm(n, device=dev) + torch.rand(n, device=dev)) / n
        u = torch.where(torch.rand(n, device=dev) < .1, 1., u)  # the sampler begins with nothing but noise
        self.sigma.copy_(shifted(u).view_as(self.sigma))
        self.own.copy_((rand() < self.degraded) * (1 + (rand() * GUESSES).long()))


# ---------------------------------------------------------------------------------------------------------- decoder

class LongClip(NamedTuple):
    scenes: list  # one after the other
    begins: list  # of each scene, in latent frames
    cuts: list  # whether a scene's latents know nothing of the one before


def make_long_clip(seed):
    """A clip of one scene, or of some that begin at chunks' borders, as prompts change."""
    rng, begins = random.Random(seed), [0]
    if rng.random() < .6:
        while (b := begins[-1] + CHUNK * rng.randint(1, 6)) < (LONG + 3) // 4: begins.append(b)
    scene = lambda k, b: around(T.make_scene((seed + k * 10 ** 9, *SIZE, LONG), endless(max(0, 4 * b - 3))))
    return LongClip([scene(k, b) for k, b in enumerate(begins)], begins, [rng.random() < .5 for _ in begins])


class LongClips:
    """Rendered clips on the device: v [N, 3, LONG, H, W] uint8, and what the encoder makes of them, mu and logvar."""
    def __init__(self, a, vae, made, seed):
        import torch
        t0, got = time.time(), []
        T.patch_vae(a.vae_fast if a.device == "cuda" else "", a.device == "cuda" and not a.no_compile)
        for i, c in enumerate(made):
            ends = [max(0, 4 * b - 3) for b in c.begins] + [LONG]
            parts = [T.render(cut([s], slice(*e)), *SIZE, a.device, seed + i) for s, e in zip(c.scenes, zip(ends, ends[1:]))]
            v = (torch.cat(parts, 2) * 255).round()
            # Latents of a cut are those of a video that begins there: the first has one frame, where others have four.
            own = [b for b, alone in zip(c.begins, c.cuts) if alone or b == 0] + [(LONG + 3) // 4]
            pieces = [v[:, :, 4 * b:4 * e - 3] / 127.5 - 1 for b, e in zip(own, own[1:])]
            with torch.no_grad(), torch.autocast(a.device, torch.bfloat16, enabled=a.device == "cuda"):
                z = zip(*(T.vae_encode(vae, p) for p in pieces))
            got.append((v.byte(), *(torch.cat(p, 2).float() for p in z)))
        T.patch_vae("")
        self.made = made
        self.v, self.mu, self.logvar = (torch.cat(p) for p in zip(*got))
        T.log(phase="long clips", clips=len(made), render_encode_s=time.time() - t0)

    def __len__(self):
        return len(self.v)

    def video(self, i):
        return self.v[i].float() / 127.5 - 1


def phase_decoder(a, notes):
    """Trains the decoder of the base model's VAE, in place; the encoder, and with it all latents, stay. Its clips are longer than it
    looks back, since one that has only seen the beginnings of clips paints clouds behind what follows, and in most of them the scene
    changes, since one that has not seen that paints the new scene in colours of the old one for two seconds."""
    import multiprocessing as mp
    seed = (T.SEED + 31 * a.seed) * 1000003
    with mp.get_context("fork").Pool(min(14, os.cpu_count())) as pool:  # before CUDA is touched
        made = pool.map(make_long_clip, range(seed, seed + a.clips), chunksize=8)
    import torch
    dev = a.device
    torch.manual_seed(T.SEED + a.seed)
    T.unpack(argparse.Namespace(work=a.work, out=a.base))
    vae = T.load_vae(a)
    clips = LongClips(a, vae, made, seed)
    before = decoder_psnr(a, vae, clips)
    for part in (vae.encoder, vae.quant_conv): part.requires_grad_(False)
    mu, logvar = (torch.zeros(a.decoder_batch, *z.shape[1:], device=dev) for z in (clips.mu, clips.logvar))
    def fill(v, shape):
        i = torch.randint(a.held, len(clips), (shape[0],), device=dev)
        v.copy_(clips.video(i)); mu.copy_(clips.mu[i]); logvar.copy_(clips.logvar[i])
    T.patch_vae(a.vae_fast if dev == "cuda" else "", dev == "cuda" and not a.no_compile)
    options = argparse.Namespace(**vars(a), kl=0., vae_stages=f"1,{a.decoder_batch},{LONG},{SIZE[1]},{SIZE[0]}")
    T.train_vae(options, notes, vae, fill, clips.video(slice(2)), encode=lambda vae, v: (mu, logvar))
    after = decoder_psnr(a, vae, clips, f"{a.samples}/decoder.png")
    notes.add(decoder_psnr=dict(before=before, after=after))
    T.save_weights(vae.state_dict(), torch.float32, f"{a.base}/vae/diffusion_pytorch_model.safetensors")


def decoder_psnr(a, vae, clips, picture=None):
    """PSNR of the clips held out, by the streaming decoder: of the first 33 frames of clips of one scene, of those from 113 on, and of
    the first and second 12 frames of every scene behind another."""
    import torch
    T.patch_vae("")
    parts, rows = dict(first=[], late=[], change=[], behind=[]), []
    for i in range(a.held):
        v, begins = clips.video(slice(i, i + 1)), clips.made[i].begins[1:]
        with torch.no_grad(): out = vae.decode(clips.mu[i:i + 1]).sample.clamp(-1, 1)
        add = lambda k, part: parts[k].append(T.psnr(out[:, :, part], v[:, :, part]))
        if not begins: add("first", slice(33)); add("late", slice(113, None))
        for f in (4 * b - 3 for b in begins if 4 * b + 21 <= LONG): add("change", slice(f, f + 12)); add("behind", slice(f + 12, f + 24))
        rows += [T.to_u8(x[0] / 2 + .5) for x in (v, out)]
    if picture: T.sheet(rows[:24], ["original", "decoded"] * 12, picture, range(0, LONG, 8))
    return {k: round(float(np.mean(p)), 2) if p else None for k, p in parts.items()}


# ---------------------------------------------------------------------------------------------------------- network
# Tokens are [B, C, R, n, ...]: samples, chunks, noisy copies of each, tokens of a chunk.

def rotate(x, table):
    """Rotary position embedding of [..., n, heads, d] by (cosines, sines) [..., n, 1, d / 2]."""
    import torch
    (p, q), (c, s) = x.unflatten(-1, (-1, 2)).unbind(-1), table
    return torch.stack((p * c - q * s, p * s + q * c), -1).flatten(-2).to(x.dtype)


def attend(q, k, v):
    """Attention of [..., n, heads, d] without a mask."""
    import torch.nn.functional as F
    o = F.scaled_dot_product_attention(*(z.flatten(0, -4).transpose(1, 2) for z in (q, k, v)))
    return o.transpose(1, 2).reshape(q.shape)


def window_attention(q, k, v, past):
    """Every chunk attends to itself and to those that the cache would hold of past: keys, the sink's keys as seen by each
    chunk of a full window, and values, all [B, chunks, n, heads, d]. Keys are rotated to their number: only differences of
    positions count, so that the sink is moved towards the chunk, not the window towards the sink."""
    import torch
    (keys, sinks, values), R, out = past, q.shape[2], []
    copies = lambda z: z.unsqueeze(-4).expand(*z.shape[:-3], R, *z.shape[-3:])
    join = lambda parts, own: torch.cat([*(copies(p) for p in parts), own], -3)
    for j in range(min(q.shape[1], KEEP - 1)):
        before = lambda z: [z[:, i] for i in range(j)]
        out.append(attend(q[:, j], join(before(keys), k[:, j]), join(before(values), v[:, j])).unsqueeze(1))
    full = q.shape[1] - KEEP + 1
    if full > 0:
        behind = lambda z: [z[:, i:i + full] for i in range(1, KEEP - 1)]
        same = values[:, :1].expand(-1, full, *(-1,) * 3)
        K, V = join([sinks, *behind(keys)], k[:, KEEP - 1:]), join([same, *behind(values)], v[:, KEEP - 1:])
        out.append(attend(q[:, KEEP - 1:], K, V))
    return torch.cat(out, 1)


def attention_input(b, x, m):
    """Queries, keys and values of a block, not rotated."""
    a, h = b.attn1, b.norm1(x.float()) * (1 + m[1]) + m[0]
    split = lambda z: z.unflatten(-1, (a.heads, -1))
    v = split(a.to_v(h))
    return split(a.norm_q(a.to_q(h))).to(v.dtype), split(a.norm_k(a.to_k(h))).to(v.dtype), v


def modulation(b, tp):
    return (b.scale_shift_table + tp.float()).unsqueeze(-2).unbind(-3)


def block_text(b, text, bias, tells):
    """Keys and values of the text of every chunk: the second where tells says so, and the biases of their tokens."""
    import torch
    a = b.attn2
    k, v = a.norm_k(a.to_k(text)), a.to_v(text)
    if tells is not None:
        choose = lambda z: torch.where(tells.view(*tells.shape, *(1,) * (z.dim() - 2)), z[:, 1:], z[:, :1])
        k, v, bias = choose(k), choose(v), choose(bias)
    return k.to(v.dtype).unflatten(-1, (a.heads, -1)), v.unflatten(-1, (a.heads, -1)), bias


def block_output(b, x, o, m, text):
    """A block behind its self attention."""
    x = (x.float() + b.attn1.to_out[0](o.flatten(-2)) * m[2]).to(x.dtype)
    a, (k, v, bias) = b.attn2, text
    q = a.norm_q(a.to_q(b.norm2(x.float()))).unflatten(-1, (a.heads, -1)).flatten(2, 3).transpose(2, 3)
    w = (q.to(k.dtype) @ k.permute(0, 1, 3, 4, 2)).float() * q.shape[-1] ** -.5 + bias[:, :, None, None]
    o = (w.softmax(-1).to(v.dtype) @ v.transpose(2, 3)).transpose(2, 3).flatten(-2).view(x.shape)
    x = x + a.to_out[0](o)
    return (x.float() + b.ffn(b.norm3(x.float()) * (1 + m[4]) + m[3]) * m[5]).to(x.dtype)


def remembered(k, v, table):
    """What window_attention reads of clean chunks, from keys and values [B, C, 1, n, heads, d]."""
    full = max(0, k.shape[1] - KEEP + 1)
    sinks = rotate(k[:, :1, 0], tuple(z[:full, 0] for z in table))
    return rotate(k, table)[:, :, 0], sinks, v[:, :, 0]


def block_forward(b, x, tp, text, bias, tells, table, past):
    """A block over chunks after past, or over clean chunks after each other without: (tokens, what the cache keeps)."""
    m = modulation(b, tp)
    q, k, v = attention_input(b, x, m)
    keep = remembered(k, v, table) if past is None else None
    o = window_attention(rotate(q, table), rotate(k, table), v, past or keep)
    return block_output(b, x, o, m, block_text(b, text, bias, tells)), keep


class Net:
    """A transformer and the rotary tables of the chunks."""
    def __init__(self, a, dit):
        import torch
        self.a, self.dit = a, dit
        self.plain = [lambda *k, b=b: block_forward(b, *k) for b in dit.blocks]
        self.blocks = self.plain
        cos, sin = dit.rope(torch.zeros(1, 16, CHUNK * CHUNKS, SIZE[1] // 8, SIZE[0] // 8, device=a.device))
        view = lambda z: z.float().reshape(CHUNKS, 1, TOKENS, 1, -1).contiguous()
        self.table = view(cos[..., 0::2]), view(sin[..., 1::2])

    def compiled(self):
        import torch
        if self.a.device == "cuda" and not self.a.no_compile:
            torch._dynamo.config.cache_size_limit = 64
            f = torch.compile(block_forward, dynamic=False)
            self.blocks = [lambda *k, b=b: f(b, *k) for b in self.dit.blocks]
        return self

    def autocast(self):
        import torch
        return torch.autocast(self.a.device, torch.bfloat16, enabled=self.a.device == "cuda", cache_enabled=False)

    def inputs(self, x, t):
        """Embeddings of tokens and of times [B, C, R]."""
        import torch.nn.functional as F
        d, e = self.dit, self.dit.condition_embedder
        temb = e.time_embedder(e.timesteps_proj(t.flatten())).unflatten(0, t.shape)
        tp = e.time_proj(e.act_fn(temb)).unflatten(-1, (6, -1))
        return F.linear(x, d.patch_embedding.weight.flatten(1), d.patch_embedding.bias), temb, tp

    def output(self, x, temb):
        """The velocity, with its values in the order in which tokens are read."""
        d = self.dit
        shift, scale = (d.scale_shift_table + temb.float().unsqueeze(-2)).unsqueeze(-2).unbind(-3)
        v = d.proj_out(d.norm_out(x.float()) * (1 + scale) + shift)
        return v.float().unflatten(-1, (4, 16)).transpose(-1, -2).flatten(-2)

    def context(self, x, text, bias, tells):
        """What every layer's cache keeps of clean chunks [B, C, n, 64]."""
        import torch
        with self.autocast():
            x, _, tp = self.inputs(x.unsqueeze(2), torch.zeros(*x.shape[:2], 1, device=x.device))
            text, out = self.dit.condition_embedder.text_embedder(text), []
            for f in self.blocks[:-1]:
                x, keep = f(x, tp, text, bias, tells, self.table, None)
                out.append(keep)
            b = self.dit.blocks[-1]  # of the last layer nothing else is needed
            _, k, v = attention_input(b, x, modulation(b, tp))
            return out + [remembered(k, v, self.table)]

    def velocity(self, x, sigma, text, bias, tells, past, blocks=None):
        """Of noisy chunks [B, C, R, n, 64] at levels [B, C, R]; past may be None for a single chunk."""
        with self.autocast():
            table = tuple(z[:x.shape[1]] for z in self.table)
            x, temb, tp = self.inputs(x, 1000 * sigma)
            text = self.dit.condition_embedder.text_embedder(text)
            for i, f in enumerate(blocks or self.blocks):
                x, _ = f(x, tp, text, bias, tells, table, past[i] if past else None)
            return self.output(x, temb)


class Rollout:
    """Endless generation with a cache, for many videos at once. text: what Texts gives for one prompt a video; window: in
    chunks; clean: whether a chunk's keys and values are computed anew when it is finished."""
    def __init__(self, net, text, seed, window=KEEP, clean=True):
        import torch
        self.net, self.window, self.clean = net, window, clean
        self.gen = torch.Generator(net.a.device).manual_seed(seed)
        self.cache = [[] for _ in net.dit.blocks]  # keys and values of every chunk, not rotated
        self.latents, self.made = [], 0
        self.old = None  # while the first chunk of the cache is of another prompt: at which chunk it is forgotten
        self.prompt(text)

    def prompt(self, text):
        import torch
        with torch.no_grad(), self.net.autocast():
            e = self.net.dit.condition_embedder.text_embedder(text[0].unsqueeze(1))
            self.text = [block_text(b, e, text[1].unsqueeze(1), None) for b in self.net.dit.blocks]
        self.size = len(text[0])

    def forward(self, x, t, first):
        """Tokens of one or more chunks [B, m, n, 64], which are the cache's from place first on."""
        import torch
        d, m, held = self.net.dit, x.shape[1], len(self.cache[0])
        tab = tuple(z[:held].reshape(1, 1, held * TOKENS, 1, -1) for z in self.net.table)
        with torch.no_grad(), self.net.autocast():
            x, temb, tp = self.net.inputs(x.flatten(1, 2)[:, None, None], torch.full((self.size, 1, 1), t, device=x.device))
            for b, cache, text in zip(d.blocks, self.cache, self.text):
                mod = modulation(b, tp)
                q, k, v = attention_input(b, x, mod)
                cache[first:first + m] = zip(k.split(TOKENS, -3), v.split(TOKENS, -3))
                K, V = (torch.cat(z, -3) for z in zip(*cache))
                part = tuple(z[:, :, first * TOKENS:(first + m) * TOKENS] for z in tab)
                x = block_output(b, x, attend(rotate(q, part), rotate(K, tab), V), mod, text)
            return self.net.output(x, temb)[:, 0, 0].unflatten(1, (m, TOKENS))

    def chunk(self):
        """The next chunk's latents [B, n, 64]."""
        import torch
        noise = lambda: torch.randn(self.size, 1, TOKENS, 64, device=self.net.a.device, generator=self.gen)
        if self.made == self.old:
            for c in self.cache: del c[0]
        for c in self.cache:
            if len(c) == self.window: del c[1]
            c.append(None)
        at, x = len(self.cache[0]) - 1, noise()
        for s, after in zip(LEVELS, (*LEVELS[1:], 0.)):
            x0 = x - s * self.forward(x, 1000 * s, at)
            x = (1 - after) * x0 + after * noise() if after else x0
        if self.clean: self.forward(x, 0., at)
        self.latents.append(x[:, 0]); self.made += 1
        return x[:, 0]

    def switch(self, text, how="recache"):
        """A new prompt: from the next chunk on (cross), with the last chunk computed anew for it, which alone is kept until
        there is a new one (recache), or with nothing kept (cut)."""
        import torch
        self.prompt(text)
        if how != "cross": self.old = None
        if how == "cut":
            for c in self.cache: c.clear()
        elif how == "recache" and self.made:
            for c in self.cache: del c[:-1]
            self.forward(torch.stack(self.latents[-1:], 1), 0., 0)
            self.old = self.made + 1


def check(a):
    """The training pass against a cache, in float32 on the CPU: the greatest difference."""
    import torch
    a = argparse.Namespace(**{**vars(a), "device": "cpu"})
    g = torch.Generator().manual_seed(3)
    net = Net(a, load_dit(a, "low"))
    x, y = (torch.randn(2, CHUNKS, TOKENS, 64, generator=g) for _ in range(2))
    s = torch.rand(2, CHUNKS, 1, generator=g)
    text = Texts(a)(["a red circle moving up", "two stars"])
    both = tuple(z.unsqueeze(1).expand(-1, 2, *z.shape[1:]) for z in text)
    tells = torch.zeros(2, CHUNKS, dtype=torch.bool)
    with torch.no_grad():
        past = net.context(x, *both, tells)
        out = net.velocity(y.unsqueeze(2).repeat(1, 1, 2, 1, 1), s.repeat(1, 1, 2), *both, tells, past)
        roll, worst = Rollout(net, text, 0), 0.
        for j in range(CHUNKS):
            for c in roll.cache:
                if len(c) == KEEP: del c[1]
                c.append(None)
            at = len(roll.cache[0]) - 1
            for i in range(2):  # each sample has its own level
                v = roll.forward(y[:, j:j + 1], 1000 * s[i, j].item(), at)
                worst = max(worst, (v[i, 0] - out[i, j, 1]).abs().max().item())
            roll.forward(x[:, j:j + 1], 0., at)
    return dict(difference=worst, of=out.abs().max().item())


# --------------------------------------------------------------------------------------------------------- training

def load_dit(a, name):
    """work/NAME.pt, or work/NAME.safetensors with what its rounding lost; "exported" is what --out holds."""
    import torch
    from safetensors.torch import load_file
    p, dit = f"{a.work}/{name}", T.new_dit().to(a.device)
    if name == "exported": sd = load_file(f"{a.out}/transformer/diffusion_pytorch_model.safetensors")
    elif os.path.exists(p + ".safetensors"):
        hi, rest = load_file(p + ".safetensors"), load_file(p + "_rest.safetensors")
        sd = {k: v.float() + rest[k].float() for k, v in hi.items()}
    else: sd = torch.load(p + ".pt", map_location="cpu")
    dit.load_state_dict(sd)
    return dit


class Student(Net):
    """A network in training, its optimizers and its running average."""
    def __init__(self, a, dit, decay):
        import torch
        super().__init__(a, dit)
        cuda = a.device == "cuda"
        self.params = list(dit.parameters())
        for q in self.params: q.grad = torch.zeros_like(q)
        self.grads = [q.grad for q in self.params]
        named = dict(dit.named_parameters())
        mats = {n for n, q in named.items() if n.startswith("blocks.") and n.endswith("weight") and q.dim() == 2}
        self.rest = [q for n, q in named.items() if n not in mats]
        self.rates = {k: torch.zeros((), device=a.device) for k in ("muon", "adam")}
        self.muon = T.Muon([q for n, q in named.items() if n in mats], self.rates["muon"])
        self.adam = torch.optim.AdamW(self.rest, lr=self.rates["adam"], betas=(.9, .99), weight_decay=0., capturable=cuda,
                                      **(dict(fused=True) if cuda else {}))
        self.ema = T.Ema(self.params, decay, cuda)
        self.loss = torch.zeros(3, device=a.device)  # as trained; the first chunk's; the later ones'

    def backward(self, v, target, weight):
        """Gradient of the weighted error of velocities [B, C, R, n, 64]."""
        import torch
        d = (v - target).square().mean(-1)
        w = weight.unsqueeze(2)
        loss = (w * d).sum() / (w.sum() * d.shape[2])
        torch._foreach_zero_(self.grads)
        loss.backward()
        d = d.detach()
        self.loss.add_(torch.stack([loss.detach(), d[:, 0].mean(), d[:, 1:].mean()]))

    def update(self):
        import torch
        torch.nn.utils.clip_grad_norm_(self.rest, 1.)
        self.muon.step(); self.adam.step(); self.ema.update()


def shifted(u):
    return SHIFT * u / (1 + (SHIFT - 1) * u)


def unshifted(s):
    return s / (SHIFT - (SHIFT - 1) * s)


def noised(x, sigma, eps):
    s = sigma[..., None, None]
    return (1 - s) * x + s * eps


def teach_step(a, net, batch):
    """Stage 1: the velocity of every chunk after clean ones (half of them with a little noise, against drift)."""
    import torch
    B, dev, x, sigma = batch.size, a.device, batch.x, batch.sigma
    def step():
        eps = torch.randn(B, CHUNKS, a.copies, TOKENS, 64, device=dev)
        rough = (torch.rand(B, device=dev) < .5) * .1 * torch.rand(B, device=dev)
        past = net.context(x + rough.view(-1, 1, 1, 1) * torch.randn_like(x), batch.text, batch.bias, batch.told)
        xr = x.unsqueeze(2)
        v = net.velocity(noised(xr, sigma, eps), sigma, batch.text, batch.bias, batch.tells, past)
        net.backward(v, eps - xr, batch.weight)
    return step


def descend(velocity, x, sigma, to, steps):
    """From one noise level [B, C, R] to another along the flow, by two-step Adams-Bashforth."""
    a, b, last, width = unshifted(sigma), unshifted(to), None, None
    for i in range(steps):
        s, e = (shifted(a + (b - a) * (i + k) / steps) for k in (0, 1))
        h = (e - s)[..., None, None]
        v = velocity(x, s)
        x = x + h * (v if last is None else v + (v - last) * h / (2 * width))
        last, width = v, h
    return x


def distill_step(a, net, teacher, slow, batch, own, empty):
    """Stages 2 and 3. A chunk at one of the sampler's levels goes down to the next one as the teacher says, guided if it is
    the first of the video or of a scene behind a chunk alone; from there the student's running average, slow, says where it
    ends. The student shall say so at once. With own, its context is its own guess of the clip, or its guess after that guess,
    and so on (batch.own), with the same targets."""
    import torch
    B, dev, x, R = batch.size, a.device, batch.x, a.copies
    levels = torch.tensor([*LEVELS, 0.], device=dev)
    said, tells = (batch.text, batch.bias), batch.tells
    first = tuple(z.expand(B, *z.shape[1:]) for z in empty)
    def guided(past):
        def velocity(y, s):
            v = teacher.velocity(y, s, *said, tells, past)
            free = teacher.velocity(y[:, :2], s[:, :2], *first, None, past, teacher.plain)
            second = 1 + (a.change_guidance - 1) * batch.alone.view(-1, 1, 1, 1, 1)
            return torch.cat([free[:, :1] + a.guidance * (v[:, :1] - free[:, :1]),
                              free[:, 1:] + second * (v[:, 1:2] - free[:, 1:]), v[:, 2:]], 1)
        return velocity
    def guess(past):
        """The student's clip after a past, from one of the levels a chunk; from pure noise only where there is a past."""
        k = (torch.rand(B, CHUNKS, 1, device=dev) * 4).long()
        k[:, 0] = k[:, 0].clamp(min=1)
        s = levels[k]
        y = noised(x.unsqueeze(2), s, torch.randn(B, CHUNKS, 1, TOKENS, 64, device=dev))
        return (y - s[..., None, None] * net.velocity(y, s, *said, tells, past))[:, :, 0]
    def step():
        xr = x.unsqueeze(2)
        with torch.no_grad():
            k = (torch.rand(B, CHUNKS, R, device=dev) * 4).long()
            s, e = levels[k], levels[k + 1]
            y = noised(xr, s, torch.randn(B, CHUNKS, R, TOKENS, 64, device=dev))
            z = descend(guided(teacher.context(x, *said, batch.told)), y, s, e, a.teacher_steps)
            past = slow.context(x, *said, batch.told)
            z = z - e[..., None, None] * slow.velocity(z, e, *said, tells, past)
            seen = x
            if own:
                made = x
                for i in range(GUESSES):
                    made = guess(net.context(made, *said, batch.told))
                    seen = torch.where(batch.own.view(-1, 1, 1, 1) > i, made, seen)
            target = (y - z) / s[..., None, None]
        v = net.velocity(y, s, *said, tells, net.context(seen, *said, batch.told))
        net.backward(v, target, batch.weight)
    return step


def evaluate(a, net, clips):
    """Velocity loss after clean chunks on clips held out, with fixed noise: {level: [first chunk, later ones, objects]}."""
    import torch
    N = len(clips.z)
    at = [i for i in range(N - a.held, N) if clips.border[i] == NEVER and not clips.later[i]]
    batch = Batch(a, clips, max(1, min(16, len(at))))
    res = {}
    for s in (*LEVELS, .3):
        g, tot, n = torch.Generator(a.device).manual_seed(1), torch.zeros(3, device=a.device), 0
        for i in range(0, len(at) - batch.size + 1, batch.size):
            batch.fill(torch.tensor(at[i:i + batch.size], device=a.device))
            x = batch.x.unsqueeze(2)
            eps = torch.randn(x.shape, device=a.device, generator=g)
            sigma = torch.full(x.shape[:3], s, device=a.device)
            with torch.no_grad():
                past = net.context(batch.x, batch.text, batch.bias, batch.told)
                v = net.velocity(noised(x, sigma, eps), sigma, batch.text, batch.bias, batch.tells, past)
            d, o = (v - (eps - x)).square().mean(-1)[:, :, 0], batch.weight > 2
            tot += torch.stack([d[:, 0].mean(), d[:, 1:].mean(), d[o].mean()]); n += 1
        res[round(s, 4)] = [round(q, 4) for q in (tot / max(1, n)).tolist()]
    return res


def optimize(a, name, net, batch, step, update, seconds, muon, adam, before=lambda p: None):
    """Steps until the seconds are up. step() computes a gradient; before(p) is called now and then with the share p of the
    time."""
    import torch
    t0 = tw = time.time()
    n, p, marks = 0, 0., []
    net.loss.zero_()
    while True:
        if n % 20 == 0 or a.device == "cpu":
            if a.device == "cuda": torch.cuda.synchronize()
            p = (time.time() - t0) / seconds
            if p >= 1: break
            k = T.rate(p, a.hold)
            net.rates["muon"].fill_(muon * k); net.rates["adam"].fill_(adam * k)
            before(p)
        batch.fill(); step(); update()
        n += 1
        if n % a.log_every == 0:
            l = [round(q, 4) for q in (net.loss / a.log_every).tolist()]
            marks.append((n, *l))
            T.log(phase=name, step=n, p=p, loss=l[0], first=l[1], later=l[2], ms=(time.time() - tw) / a.log_every * 1e3)
            net.loss.zero_()
            tw = time.time()
    return {f"{name}_steps": n, f"{name}_s": time.time() - t0, f"{name}_losses": marks}


def finish(a, name, net, clips, notes, facts):
    """The running average becomes the network, and work/NAME."""
    net.ema.store()
    T.save_split(net.dit, net.ema, f"{a.work}/{name}")
    net.blocks, blocks = net.plain, net.blocks
    notes.add(**facts, **{f"{name}_eval": evaluate(a, net, clips)})
    net.blocks = blocks


def phase_train(a, notes):
    import multiprocessing as mp
    t0 = time.time()
    seed = (T.SEED + 31 * a.seed) * 1000003
    with mp.get_context("fork").Pool(min(14, os.cpu_count())) as pool:  # before CUDA is touched
        made = pool.map(make_clip, [(seed + i, a.changes) for i in range(a.clips)], chunksize=50)
    import torch
    dev, cuda = a.device, a.device == "cuda"
    torch.manual_seed(T.SEED + a.seed)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.benchmark = True
    torch.backends.cuda.enable_cudnn_sdp(False)
    T.log(phase="train", scenes_s=time.time() - t0)
    side = start_warm(a)
    T.unpack(argparse.Namespace(work=a.work, out=a.base))
    notes.add(check=check(a))
    clips = Clips(a, made, Texts(a), a.cache_seconds, T.SEED + a.seed)
    notes.add(clips=len(clips.z), clips_std=clips.std, clips_s=time.time() - t0)
    del made
    if cuda: torch.cuda.empty_cache()
    batch = Batch(a, clips, a.batch)
    if a.teach_seconds:
        net = Student(a, load_dit(a, a.start), .999)
        notes.add(before_eval=evaluate(a, net, clips))
        step = prepare(a, "teach", net, batch, teach_step(a, net, batch))
        up = T.captured(a, "teach update", net.update)
        facts = optimize(a, "teach", net, batch, step, up, a.teach_seconds, a.muon_lr, a.lr)
        finish(a, "teacher", net, clips, notes, facts)
        del net, step, up
        if cuda: torch.cuda.empty_cache()
    if a.distill_seconds: distill(a, batch, clips, notes)
    if side: side.kill()
    notes.add(train_s=time.time() - t0)


def prepare(a, name, net, batch, step):
    """The step of a network as a CUDA graph, with compiled blocks."""
    t0 = time.time()
    net.compiled()
    run = T.captured(a, name, step, 3, batch.fill)
    T.log(phase=name, prepare_s=time.time() - t0)
    return run


def distill(a, batch, clips, notes):
    import torch
    teacher = Net(a, load_dit(a, "teacher")).compiled()
    net = Student(a, load_dit(a, a.distill_from), .99)
    slow = Net(a, copy.deepcopy(net.dit)).compiled()
    slow_params = [q.detach() for q in slow.dit.parameters()]
    empty = clips.text[:1].unsqueeze(1), clips.bias[:1].unsqueeze(1)
    steps = [prepare(a, f"distill {own}", net, batch, distill_step(a, net, teacher, slow, batch, own, empty)) for own in (False, True)]
    def update():
        net.update()
        torch._foreach_lerp_(slow_params, [q.detach() for q in net.params], .02)
    up = T.captured(a, "distill update", update)
    begin, full = a.own_begin, a.own_full
    def ramp(p): batch.degraded = .8 * min(1., max(0., (p - begin) / max(1e-6, full - begin)))
    facts = optimize(a, "distill", net, batch, lambda: steps[batch.degraded > 0](), up, a.distill_seconds,
                     a.muon_lr * a.distill_rate, a.lr * a.distill_rate, ramp)
    finish(a, "causal", net, clips, notes, facts)


def start_warm(a):
    """Compiles the blocks in a process of its own, while clips are rendered: the trainer finds the result in the cache."""
    if a.device != "cuda" or a.no_compile: return None
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", os.path.abspath(os.path.join(a.work, "inductor")))
    return subprocess.Popen([sys.executable, os.path.abspath(__file__), "warm"] + sys.argv[2:])


def phase_warm(a, notes):
    import torch
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    torch.backends.cuda.enable_cudnn_sdp(False)
    net, dev, B = Net(a, T.new_dit().to(a.device)).compiled(), a.device, a.batch
    text = torch.randn(B, 2, T.TEXT_LEN, T.UMT5["d_model"], device=dev), torch.zeros(B, 2, T.TEXT_LEN, device=dev)
    tells = torch.zeros(B, CHUNKS, dtype=torch.bool, device=dev)
    def run(copies):
        x = torch.randn(B, CHUNKS, TOKENS, 64, device=dev)
        y, s = x.unsqueeze(2).repeat(1, 1, copies, 1, 1), torch.rand(B, CHUNKS, copies, device=dev)
        return net.velocity(y, s, *text, tells, net.context(x, *text, tells))
    t0 = time.time()
    run(a.copies).square().mean().backward()
    T.log(phase="warm", gradient_s=time.time() - t0)
    if not a.distill_seconds: return
    with torch.no_grad():
        for copies in (a.copies, 1): run(copies)
    T.log(phase="warm", s=time.time() - t0)


# ------------------------------------------------------------------------------------------------------------ judge

def nearest(c, palette):
    k = list(palette)
    return k[int(np.argmin([np.sum((np.array(c) - palette[n]) ** 2) for n in k]))]


def regions(m):
    """Connected parts of a small mask, by their edges: arrays of (row, column), the largest first."""
    m, out = m.copy(), []
    H, W = m.shape
    for s in zip(*np.nonzero(m)):
        if not m[s]: continue
        todo, part = [s], []
        m[s] = False
        while todo:
            y, x = todo.pop()
            part.append((y, x))
            for p in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
                if 0 <= p[0] < H and 0 <= p[1] < W and m[p]: m[p] = False; todo.append(p)
        out.append(np.array(part))
    return sorted(out, key=len, reverse=True)


def outline(part, n=64):
    """Radius of a region in n directions from its centre, as a share of that of a disc of its area, and how full its
    middle is."""
    d = part - part.mean(0)
    r, a = np.hypot(d[:, 0], d[:, 1]), np.arctan2(d[:, 0], d[:, 1])
    R = np.sqrt(len(part) / np.pi)
    p = np.zeros(n)
    np.maximum.at(p, ((a + np.pi) / (2 * np.pi) * n).astype(int) % n, r)
    for i in range(n):
        if p[i] == 0: p[i] = p[i - 1]
    return p / R, float((r < .35 * R).sum() / (np.pi * (.35 * R) ** 2))


def outlines():
    """Of the renderer's own shapes, {(shape, softness): outline}: as they are, and with points rounded as the VAE rounds those of small objects."""
    import torch
    from PIL import Image, ImageFilter
    y, x = np.mgrid[-1.6:1.6:97j, -1.6:1.6:97j]
    radius = 97 / 3.2  # of a shape, in pixels
    out = {}
    for i, k in enumerate(T.SHAPE_IDS):
        inside = Image.fromarray((T.sdf(i, torch.tensor(x), torch.tensor(y)).numpy() < 0).astype(np.uint8) * 255)
        for soft in (0, .12, .2): out[k, soft] = outline(np.argwhere(np.asarray(inside.filter(ImageFilter.GaussianBlur(soft * radius))) > 127))
    return out


def shape_of(part, known):
    p, middle = outline(part)
    tilts = range(-3, 4)  # of 64: nothing that is asked for spins
    error = {k: min(np.mean((p - np.roll(q, s)) ** 2) for s in tilts) + .3 * (middle - m) ** 2 for k, (q, m) in known.items()}
    return min(error, key=error.get)[0]


def joined(parts, shape):
    """Regions, where those on opposite edges that face each other are one: an object that comes back on the other side."""
    out = []
    for c in parts:
        faces = lambda d, k: c[:, k].max() == shape[k] - 1 and d[:, k].min() == 0 or c[:, k].min() == 0 and d[:, k].max() == shape[k] - 1
        meets = lambda d, k: c[:, k].min() <= d[:, k].max() and d[:, k].min() <= c[:, k].max()
        if not any(faces(d, k) and meets(d, 1 - k) for d in out for k in (0, 1)): out.append(c)
    return out


def look(args):
    """What a frame [H, W, 3] uint8 shows: the background's colour, the number of objects, and of the largest its colour,
    centre, whether it touches the edge, and its shape if not."""
    f, known = args
    f = f.astype(np.float32) / 255
    bg = np.median(np.concatenate([f[:4].reshape(-1, 3), f[-4:].reshape(-1, 3), f[:, :4].reshape(-1, 3), f[:, -4:].reshape(-1, 3)]), 0)
    shadow = (f < bg + .02).all(-1) & (np.std(f / np.maximum(bg, .05), -1) < .06) & (f.mean(-1) > .55 * bg.mean())
    H, W = shadow.shape
    parts = [c for c in regions((np.abs(f - bg).max(-1) > .13) & ~shadow) if len(c) > .008 * H * W]
    o = dict(bg=nearest(bg, T.BACK), n=len(joined(parts, shadow.shape)))
    if parts:
        c = parts[0]
        px = f[c[:, 0], c[:, 1]]
        sat = px.max(1) - px.min(1)
        px = px[np.argsort(-sat)[:max(8, len(px) // 2)]] if np.median(sat) > .2 else px
        color = np.median(px, 0)
        # Pixels at its edge are a mixture: those that are more of the object than of the background are its shape.
        own = c[(f[c[:, 0], c[:, 1]] - bg) @ (color - bg) > .5 * np.sum((color - bg) ** 2)]
        edge = bool(c.min() == 0 or c[:, 0].max() == H - 1 or c[:, 1].max() == W - 1)
        o.update(color=nearest(color, T.OBJ), x=float(c[:, 1].mean() / W), y=float(c[:, 0].mean() / H), edge=edge,
                 shape=None if edge else shape_of(own if len(own) else c, known))
    return o


def scores(seen, want):
    """Shares of the looks that show what is wanted; motion and shape only of objects that are whole."""
    got, mean = [q for q in seen if q["n"]], lambda l: float(np.mean(l)) if len(l) else None
    whole = [(p, q) for p, q in zip(seen, seen[1:]) if p.get("edge") is False and q.get("edge") is False]
    way = dict(right=("x", 1), left=("x", -1), up=("y", -1), down=("y", 1)).get(want["motion"])
    return dict(one=mean([q["n"] == 1 for q in seen]), color=mean([q["color"] == want["color"] for q in got]) or 0.,
                bg=mean([q["bg"] == want["bgcolor"] for q in seen]), shape=mean([q["shape"] == want["shape"] for q in got if q["shape"]]),
                motion=mean([(q[way[0]] - p[way[0]]) * way[1] > 0 for p, q in whole]) if way else None)


def right(q, want):
    return q["n"] > 0 and q["color"] == want["color"] and q["bg"] == want["bgcolor"] and q["shape"] in (None, want["shape"])


MOVES = dict(right="moving to the right", left="moving to the left", up="moving up", down="moving down", bounce="bouncing",
             orbit="orbiting", float="floating")


def wishes(count, seed=0):
    """What to ask for: one object on a plain background, a quarter of them pairs that were held out of training."""
    rng, out, held = random.Random(77 + seed), [], sorted(T.HELD_COLOR_SHAPE)
    for i in range(count):
        w = dict(color=list(T.OBJ)[i % 8], shape=T.SHAPE_IDS[(i + i // 8 * 3) % 8], motion=list(MOVES)[i % 7], big=i % 5 == 2)
        if i % 4 == 3: w["color"], w["shape"] = held[i // 4 % len(held)]
        w["bgcolor"] = T.pick(rng, [c for c in T.BACK if c != w["color"]])
        out.append(w)
    return out


def words(w):
    return f"{T.an(('big ' if w['big'] else '') + w['color'] + ' ' + w['shape'])} {MOVES[w['motion']]} on {T.an(w['bgcolor'])} background"


def series(i, count):
    """Wishes of one video, a prompt each: all is new, or in every fourth video one attribute."""
    out, rng = wishes(count, 100 + i), random.Random(i)
    if i % 4 == 0:
        for k in range(1, count):
            what = ("color", "bgcolor", "shape")[k % 3]
            names = T.SHAPE_IDS if what == "shape" else T.OBJ if what == "color" else T.BACK
            taken = (out[k - 1][what], out[k - 1]["bgcolor" if what == "color" else "color"])
            out[k] = dict(out[k - 1], **{what: T.pick(rng, [c for c in names if c not in taken])})
    return out


def decode(a, vae, z):
    """Latents [B, F, n, 64] to frames, uint8 [B, T, H, W, 3], with the decoder's cache as a stream has it."""
    import torch
    st = json.load(open(f"{a.work}/stats.json"))
    mean, std = (torch.tensor(st[k], device=a.device).view(1, -1, 1, 1, 1) for k in ("mean", "std"))
    B, F, (w, h) = len(z), z.shape[1], SIZE
    z = z.view(B, F, h // 16, w // 16, 16, 2, 2).permute(0, 4, 1, 2, 5, 3, 6).reshape(B, 16, F, h // 8, w // 8) * std + mean
    vae.clear_cache()
    out = []
    with torch.no_grad():
        z = vae.post_quant_conv(z)
        for i in range(F):
            vae._conv_idx = [0]
            v = vae.decoder(z[:, :, i:i + 1], feat_cache=vae._feat_map, feat_idx=vae._conv_idx, first_chunk=i == 0)
            out.append(((v.clamp(-1, 1) / 2 + .5) * 255).round().byte().permute(0, 2, 3, 4, 1).cpu())
    vae.clear_cache()
    return torch.cat(out, 1).numpy()


def rendered(a, vae, asked):
    """What is asked for as the renderer shows it and the VAE keeps it: clips, uint8 [FRAMES, H, W, 3]."""
    import torch
    def scene(w, seed):
        for k in range(10 ** 5):
            s = around(T.make_scene((seed + k, *SIZE, FRAMES), endless()))
            if (s["n"], s["bg"], s["motion"], s["size"]) == (1, "solid", w["motion"], "big" if w["big"] else "normal"): break
        s.update(color=[w["color"]], shape=[w["shape"]], bgcolor=w["bgcolor"], bgrgb=np.array(T.BACK[w["bgcolor"]], np.float32))
        s["objs"][0].update(shape=T.SHAPE_IDS.index(w["shape"]), color=np.array(T.OBJ[w["color"]], np.float32))
        return Clip(s)
    out = []
    for i in range(0, len(asked), 8):
        v = render([scene(w, (T.SEED + i + j) * 10 ** 6) for j, w in enumerate(asked[i:i + 8])], a.device, i)[0]
        with torch.no_grad(): out += [T.to_u8(d / 2 + .5) for d in vae.decode(vae.encode(v).latent_dist.mode()).sample]
    return out


def seam(v):
    """Mean change of the picture at the chunks' borders over that elsewhere."""
    d = np.array([np.abs(p.astype(np.int16) - q).mean() for p, q in zip(v, v[1:])])
    at = np.zeros(len(d), bool)
    at[4 * CHUNK - 4::4 * CHUNK] = True
    return float(d[at].mean() / max(1e-6, d[~at].mean()))


def roll(a, net, texts, prompts, how, seed):
    """Videos with prompts [video][time] that change evenly: latents [B, F, n, 64]. Also the chunks at which they change."""
    import torch
    times = len(prompts[0])
    at = [round(a.chunks * k / times) for k in range(times)]
    r = Rollout(net, texts([p[0] for p in prompts]), seed, a.window // CHUNK, not a.no_clean)
    for i in range(a.chunks):
        if i in at[1:]: r.switch(texts([p[at.index(i)] for p in prompts]), how)
        r.chunk()
    return torch.stack(r.latents, 1).unflatten(2, (CHUNK, -1)).flatten(1, 2), at


def phase_judge(a, notes):
    import multiprocessing as mp, torch
    torch.set_num_threads(1)
    known = outlines()
    pool = mp.get_context("fork").Pool(min(14, os.cpu_count()))  # before CUDA is touched
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    if not os.path.exists(f"{a.work}/stats.json"): T.unpack(argparse.Namespace(work=a.work, out=a.base))
    net, texts, vae = Net(a, load_dit(a, a.net)), Texts(a), T.load_vae(a)
    with torch.no_grad():
        for q in net.dit.parameters(): q.copy_(q.bfloat16().float())  # as it will be stored
    os.makedirs(a.samples, exist_ok=True)
    watch = lambda v: pool.map(look, [(f, known) for f in v[::a.every]], chunksize=16)
    judge_rendered(a, notes, vae, watch)
    judge_steady(a, notes, net, texts, vae, watch)
    for how in filter(None, a.switches.split(",")): judge_changes(a, notes, net, texts, vae, watch, how)
    pool.terminate()


def averages(rows):
    """Means over dicts, without what is None."""
    return {k: round(float(np.mean([r[k] for r in rows if r[k] is not None] or [0.])), 3) for k in rows[0]}


LIMITS = dict(color=.93, shape=.80, bg=.97, one=.85, motion=.85)


def judge_rendered(a, notes, vae, watch):
    """The judge itself, on clips in which all is as it was asked for."""
    asked = wishes(a.videos)
    rows = [scores(watch(v), w) for w, v in zip(asked, rendered(a, vae, asked))]
    notes.add(rendered=dict(clips=len(rows), **averages(rows)))


def judge_steady(a, notes, net, texts, vae, watch):
    """Rollouts under one prompt, scored by quarters."""
    t0, asked = time.time(), wishes(a.videos)
    z, _ = roll(a, net, texts, [[words(w)] for w in asked], "cross", 1)
    vids = [v for i in range(0, len(z), 16) for v in decode(a, vae, z[i:i + 16])]
    seen = [watch(v) for v in vids]
    q = len(seen[0]) // 4
    parts = [[scores(s[k * q:(k + 1) * q], w) for s, w in zip(seen, asked)] for k in range(4)]
    quarters = [averages(p) for p in parts]
    std = [round(p.std().item(), 3) for p in z.float().chunk(4, 1)]
    drift = [abs(float(v[-len(v) // 8:].mean()) - float(v[:len(v) // 8].mean())) / 255 for v in vids]
    failed = [f"{k} {p[k]} in quarter {i + 1}" for i, p in enumerate(quarters) for k, l in LIMITS.items() if p[k] < l]
    failed += [f"{k} falls" for k in LIMITS if quarters[3][k] < quarters[0][k] - .05]
    seams = float(np.mean([seam(v) for v in vids]))
    if seams > 1.4: failed.append("seams")
    if np.mean(drift) > .05: failed.append("drift")
    if abs(std[3] / std[0] - 1) > .05: failed.append("latent standard deviation")
    notes.add(**{f"{a.net}_steady": dict(frames=len(vids[0]), quarters=quarters, seam=round(seams, 3), std=std, s=round(time.time() - t0, 1),
                                         drift=round(float(np.mean(drift)), 4), failed=failed,
                                         videos=[[words(w)] + [list(p[i].values()) for p in parts] for i, w in enumerate(asked)])})
    at = np.linspace(4, len(vids[0]) - 1, 10).astype(int)
    T.sheet(vids[:16], [words(w) for w in asked[:16]], f"{a.samples}/{a.net}_steady.png", at)


def judge_changes(a, notes, net, texts, vae, watch, how):
    """Rollouts whose prompt changes four times: whether all is right within two chunks, and stays so."""
    t0, asked = time.time(), [series(i, 5) for i in range(a.videos)]
    z, at = roll(a, net, texts, [[words(w) for w in s] for s in asked], how, 2)
    vids = [v for i in range(0, len(z), 16) for v in decode(a, vae, z[i:i + 16])]
    border = [max(0, 4 * CHUNK * c - 3) for c in at] + [len(vids[0])]
    two, bad, rows, delays = 8 * CHUNK, [], [], []
    for s, v in zip(asked, vids):
        seen = watch(v)
        for k in range(1, 5):
            here = [(f * a.every - border[k], q) for f, q in enumerate(seen) if border[k] <= f * a.every < border[k + 1]]
            soon = [f for f, q in here if right(q, s[k])]
            after = scores([q for f, q in here if f >= two], s[k])
            rows.append(after)
            ok = bool(soon) and soon[0] <= two and min(after["color"], after["bg"] or 0.) > .9 and (after["shape"] is None or after["shape"] > .7)
            delays.append(soon[0] if soon else 10 ** 4)
            if not ok: bad.append([words(s[k - 1]), words(s[k]), delays[-1], after])
    notes.add(**{f"{a.net}_{how}": dict(changes=len(rows), followed=round(1 - len(bad) / len(rows), 3), median_frames=float(np.median(delays)),
                                        after=averages(rows), missed=bad, s=round(time.time() - t0, 1))})
    pick = [min(b + d, border[-1] - 1) for b in border[1:4] for d in (-1, 6, 16, 40)]
    T.sheet(vids[:12], [" / ".join(words(w) for w in s[:4]) for s in asked[:12]], f"{a.samples}/{a.net}_{how}.png", pick)


# ----------------------------------------------------------------------------------------------------------- export

def original_name(k):
    """The name that Self-Forcing's files have for a tensor of Diffusers'."""
    p = k.split(".")
    if p[0] == "blocks":
        t, inside = p[2:], {"to_q": "q", "to_k": "k", "to_v": "v", "to_out": "o"}
        if t[0] == "ffn": t = ["ffn", "0" if t[2] == "0" else "2", t[-1]]
        elif t[0] == "norm2": t = ["norm3", t[1]]
        elif t[0] == "scale_shift_table": t = ["modulation"]
        else: t = ["self_attn" if t[0] == "attn1" else "cross_attn", inside.get(t[1], t[1]), t[-1]]
        return ".".join(p[:2] + t)
    if k == "scale_shift_table": return "head.modulation"
    if p[0] == "proj_out": return "head.head." + p[1]
    if p[0] != "condition_embedder": return k
    e = dict(text_embedder="text_embedding", time_embedder="time_embedding", time_proj="time_projection")[p[1]]
    return f"{e}.{1 if p[1] == 'time_proj' else 0 if p[2] == 'linear_1' else 2}.{p[-1]}"


def phase_export(a, notes):
    import torch
    from safetensors.torch import save_file
    cpu = argparse.Namespace(**{**vars(a), "device": "cpu"})
    sd = {k: v.detach().bfloat16().contiguous() for k, v in load_dit(cpu, a.net).state_dict().items()}
    os.makedirs(f"{a.out}/transformer", exist_ok=True)
    save_file(sd, f"{a.out}/transformer/diffusion_pytorch_model.safetensors", {"format": "pt"})
    cfg = json.load(open(f"{a.base}/transformer/config.json"))
    cfg.update(_class_name="CausalWanTransformer3DModel", num_frames_per_block=CHUNK, local_attn_size=WINDOW, sink_size=CHUNK,
               sliding_window_num_frames=21, rope_cache_policy="relativistic")
    T.write_json(f"{a.out}/transformer/config.json", dict(sorted(cfg.items())))
    index = json.load(open(f"{a.base}/model_index.json"))
    index.update(_class_name="WanCausalDMDPipeline", transformer=["diffusers", "CausalWanTransformer3DModel"], transformer_2=[None, None])
    for k in ("boundary_ratio", "expand_timesteps"): index.pop(k, None)
    T.write_json(f"{a.out}/model_index.json", index)
    T.write_json(f"{a.out}/gst-wan.json", dict(
        components="../" + os.path.basename(os.path.abspath(a.base)), width=SIZE[0], height=SIZE[1], framerate=f"{T.FPS}/1",
        causal=dict(preset="longlive-infinity", recache_frames=CHUNK)))
    if a.original: torch.save({"generator_ema": {"model." + original_name(k): v for k, v in sd.items()}}, a.original)
    notes.add(export_bytes=os.path.getsize(f"{a.out}/transformer/diffusion_pytorch_model.safetensors"), tensors=len(sd))


def phase_preview(a, notes):
    made = [make_clip((a.seed * 1000 + i, .6)) for i in range(a.clips)]
    v, first, _ = render(made, "cpu", 5)
    labels = [c.scene["captions"][0] + (f" | from latent frame {c.border}: {c.changed['captions'][0]}" if c.changed else "") for c in made]
    rows = [np.concatenate([T.to_u8(x / 2 + .5), T.to_u8(y / 2 + .5)]) for x, y in zip(v, first)]
    T.sheet(rows, labels, f"{a.samples}/causal_clips.png", (*range(0, FRAMES, 12), FRAMES, FRAMES + 8))


def phase_check(a, notes):
    T.unpack(argparse.Namespace(work=a.work, out=a.base))
    notes.add(check=check(a))


PHASES = dict(train=phase_train, decoder=phase_decoder, judge=phase_judge, export=phase_export, check=phase_check, preview=phase_preview, warm=phase_warm)


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("what", choices=[*PHASES, "smoke"])
    ap.add_argument("--work", default="work"); ap.add_argument("--base", default=os.path.join(here, "wan-tiny"))
    ap.add_argument("--out", default="wan-tiny-causal"); ap.add_argument("--samples", default="samples")
    ap.add_argument("--device", default="cuda"); ap.add_argument("--seed", type=int, default=0)
    ap.add_argument("--clips", type=int, default=7000); ap.add_argument("--cache-seconds", type=float, default=60)
    ap.add_argument("--cache-batch", type=int, default=16); ap.add_argument("--held", type=int, default=96, help="clips kept to evaluate")
    ap.add_argument("--changes", type=float, default=.5, help="share of the clips whose scene changes")
    ap.add_argument("--start", default="low", help="weights in --work, or exported, from which stage 1 starts")
    ap.add_argument("--distill-from", default="teacher", help="likewise for stages 2 and 3")
    ap.add_argument("--teach-seconds", type=float, default=165); ap.add_argument("--distill-seconds", type=float, default=140)
    ap.add_argument("--own-begin", type=float, default=.25, help="share of the second stage's time at which the third begins")
    ap.add_argument("--own-full", type=float, default=.5); ap.add_argument("--teacher-steps", type=int, default=4)
    ap.add_argument("--guidance", type=float, default=2., help="of the teacher, in first chunks")
    ap.add_argument("--change-guidance", type=float, default=1.5, help="of the teacher, in the first chunk behind one of the old scene")
    ap.add_argument("--batch", type=int, default=32); ap.add_argument("--copies", type=int, default=2, help="noisy copies of each clip")
    ap.add_argument("--lr", type=float, default=7e-4); ap.add_argument("--muon-lr", type=float, default=1e-3)
    ap.add_argument("--distill-rate", type=float, default=.3, help="share of the learning rates in stages 2 and 3")
    ap.add_argument("--hold", type=float, default=.3, help="share of the time before the learning rates begin to fall")
    ap.add_argument("--object-weight", type=float, default=4.); ap.add_argument("--first-weight", type=float, default=.5)
    ap.add_argument("--change-weight", type=float, default=1., help="more for the first chunk of a new scene")
    ap.add_argument("--net", default="causal", help="judge, export: likewise")
    ap.add_argument("--videos", type=int, default=16); ap.add_argument("--chunks", type=int, default=167); ap.add_argument("--every", type=int, default=4)
    ap.add_argument("--switches", default="recache,cross", help="ways to change the prompt: recache, cross, cut")
    ap.add_argument("--window", type=int, default=WINDOW, help="judge: another is a control, 21 at most, and scores lower")
    ap.add_argument("--no-clean", action="store_true", help="judge: likewise, without the clean pass")
    ap.add_argument("--original", default="")
    ap.add_argument("--no-graph", action="store_true"); ap.add_argument("--no-compile", action="store_true")
    ap.add_argument("--vae-fast", default="conv2d", choices=["", "conv3d", "conv2d"]); ap.add_argument("--vae-over", default="{}")
    ap.add_argument("--vae-seconds", type=float, default=120); ap.add_argument("--vae-lr", type=float, default=5e-4)
    ap.add_argument("--decoder-batch", type=int, default=8)
    ap.add_argument("--log-every", type=int, default=200)
    a = ap.parse_args()
    for d in (a.work, a.samples): os.makedirs(d, exist_ok=True)
    notes = T.Notes(a.work)
    todo = [a.what]
    if a.what == "smoke":
        todo = ["train", "judge", "export", "preview"]
        small = dict(clips=5, held=2, cache_batch=3, teach_seconds=10, distill_seconds=20, own_begin=.3, own_full=.4, batch=1, copies=1,
                     videos=1, chunks=6, every=8, log_every=1)
        for k, v in small.items(): setattr(a, k, v)
    for w in todo: PHASES[w](a, notes)


if __name__ == "__main__":
    main()
