#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Causal, chunked, KV-cached Wan generation: a minimal reference in plain PyTorch.

Written from a description, not from anybody's code. Parameter names are those of Diffusers' WanTransformer3DModel, so a
state dict of that class loads as it is; `rename_original` maps the names of the released causal checkpoints to them.
Everything is small and slow on purpose; the point is that every rule of the specification has one place here.

    python3 causal_reference.py            runs the self-tests on the CPU (a few seconds, one core)

Tensors: latents [B, F, C, H, W] (frame axis second, as in all causal pipelines); t [B, F] (one noise level per latent
frame); tokens are frame-major, n = (H/2)(W/2) per frame. Cache positions are counted in latent frames.
"""
import math
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F

# ------------------------------------------------------------------------------------------------------------- config


@dataclass
class Cfg:
    heads: int = 2
    head_dim: int = 32
    layers: int = 2
    ffn: int = 96
    in_ch: int = 4
    out_ch: int = 4
    text_dim: int = 24
    text_len: int = 16  # 512 in every released model
    freq_dim: int = 256
    eps: float = 1e-6
    # numerics of the two families: "original" = fp64 sinusoid and fp64 rotation, "diffusers" = fp32 both
    style: str = "original"

    @property
    def dim(self):
        return self.heads * self.head_dim


def random_weights(c: Cfg, seed=0, scale=0.08):
    """Random weights under Diffusers names; biases and tables are not zero, so that every term matters."""
    g = torch.Generator().manual_seed(seed)
    r = lambda *s: torch.randn(*s, generator=g) * scale
    D, w = c.dim, {}
    lin = lambda k, o, i: w.update({k + ".weight": torch.randn(o, i, generator=g) / math.sqrt(i), k + ".bias": r(o)})
    w["patch_embedding.weight"], w["patch_embedding.bias"] = torch.randn(D, c.in_ch, 1, 2, 2, generator=g) / 4, r(D)
    lin("condition_embedder.time_embedder.linear_1", D, c.freq_dim)
    lin("condition_embedder.time_embedder.linear_2", D, D)
    lin("condition_embedder.time_proj", 6 * D, D)
    lin("condition_embedder.text_embedder.linear_1", D, c.text_dim)
    lin("condition_embedder.text_embedder.linear_2", D, D)
    for i in range(c.layers):
        b = f"blocks.{i}."
        w[b + "scale_shift_table"] = torch.randn(1, 6, D, generator=g) / math.sqrt(D)
        for a in ("attn1", "attn2"):
            for n in ("to_q", "to_k", "to_v", "to_out.0"):
                lin(b + f"{a}.{n}", D, D)
            for n in ("norm_q", "norm_k"):
                w[b + f"{a}.{n}.weight"] = 1 + r(D)
        w[b + "norm2.weight"], w[b + "norm2.bias"] = 1 + r(D), r(D)
        lin(b + "ffn.net.0.proj", c.ffn, D)
        lin(b + "ffn.net.2", D, c.ffn)
    w["scale_shift_table"] = torch.randn(1, 2, D, generator=g) / math.sqrt(D)
    lin("proj_out", 4 * c.out_ch, D)
    return w


_RENAME = {"self_attn": "attn1", "cross_attn": "attn2", "q": "to_q", "k": "to_k", "v": "to_v", "o": "to_out.0",
           "norm3": "norm2", "modulation": "scale_shift_table"}


def rename_original(sd, prefixes=("_fsdp_wrapped_module.", "_checkpoint_wrapped_module.", "base_model.model.")):
    """Names of a released causal checkpoint -> Diffusers names. Strips wrapper parts anywhere and one leading `model.`."""
    out = {}
    for k, v in sd.items():
        for p in prefixes:
            k = k.replace(p, "")
        k = k.removeprefix("module.").removeprefix("model.")
        p = k.split(".")
        if p[0] == "blocks":
            tail = p[2:]
            if tail[0] == "ffn":
                tail = ["ffn", "net", "0", "proj"] + tail[2:] if tail[1] == "0" else ["ffn", "net", "2"] + tail[2:]
            else:
                tail = [_RENAME.get(x, x) for x in tail]
            k = ".".join(p[:2] + tail)
        elif p[0] == "head":
            k = "scale_shift_table" if p[1] == "modulation" else "proj_out." + p[2]
        elif p[0] in ("text_embedding", "time_embedding"):
            e = "text_embedder" if p[0][:2] == "te" else "time_embedder"
            k = f"condition_embedder.{e}.linear_{1 if p[1] == '0' else 2}.{p[2]}"
        elif p[0] == "time_projection":
            k = "condition_embedder.time_proj." + p[2]
        out[k] = v
    return out


# ------------------------------------------------------------------------------------------------------------- network


def linear(w, k, x):
    return F.linear(x, w[k + ".weight"], w[k + ".bias"])


def rms(x, g, eps):  # over the whole width: all heads together
    return (x.float() * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + eps)).to(x.dtype) * g


def ln(x, eps, w=None, b=None):
    return F.layer_norm(x.float(), x.shape[-1:], w, b, eps).to(x.dtype)


def rope_angles(head_dim, frames, h, w):
    """frames: 1-D tensor of (possibly fractional, unbounded) time positions -> angles [F*h*w, head_dim/2], fp64."""
    d = 2 * (head_dim // 6)
    om = lambda n: 1.0 / torch.pow(10000.0, torch.arange(0, n, 2, dtype=torch.float64) / n)
    pos = lambda k: torch.arange(k, dtype=torch.float64)
    f = frames.to(torch.float64)
    T, Y, X = (torch.outer(p, om(n)) for p, n in ((f, head_dim - 2 * d), (pos(h), d), (pos(w), d)))
    n = len(f)
    return torch.cat([T.view(n, 1, 1, -1).expand(n, h, w, -1), Y.view(1, h, 1, -1).expand(n, h, w, -1),
                      X.view(1, 1, w, -1).expand(n, h, w, -1)], -1).reshape(n * h * w, -1)


def rotate(x, ang, style):
    """x [B, L, heads, hd], adjacent pairs; ang [L, hd/2]."""
    dt = torch.float64 if style == "original" else torch.float32
    c, s = (f(ang).to(dt)[None, :, None] for f in (torch.cos, torch.sin))
    a, b = x.to(dt).unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([a * c - b * s, a * s + b * c], -1).flatten(-2).to(x.dtype)


def attend(q, k, v, mask=None):  # [B, L, heads, hd]; no mask at inference in any released pipeline
    q, k, v = (z.transpose(1, 2) for z in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2).flatten(2)


class Net:
    def __init__(self, c: Cfg, w: dict):
        self.c, self.w = c, w

    def text_kv(self, text):
        """text [B, len, text_dim] (zero rows after the prompt) -> per layer (K, V); once per prompt, per network."""
        c, w = self.c, self.w
        text = F.pad(text, (0, 0, 0, c.text_len - text.shape[1]))
        h = linear(w, "condition_embedder.text_embedder.linear_1", text)
        h = linear(w, "condition_embedder.text_embedder.linear_2", F.gelu(h, approximate="tanh"))
        out = []
        for i in range(c.layers):
            a = f"blocks.{i}.attn2."
            k = rms(linear(w, a + "to_k", h), w[a + "norm_k.weight"], c.eps).unflatten(2, (c.heads, -1))
            out.append((k, linear(w, a + "to_v", h).unflatten(2, (c.heads, -1))))
        return out

    def time(self, t):
        """t [B, F] float -> temb [B, F, D], tp [B, F, 6, D]."""
        c, w = self.c, self.w
        half = c.freq_dim // 2
        if c.style == "original":
            a = torch.outer(t.flatten().double(), torch.pow(10000.0, -torch.arange(half, dtype=torch.float64) / half))
        else:
            a = torch.outer(t.flatten().float(), torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half))
        e = torch.cat([a.cos(), a.sin()], 1).float()
        e = linear(w, "condition_embedder.time_embedder.linear_1", e)
        temb = linear(w, "condition_embedder.time_embedder.linear_2", F.silu(e)).unflatten(0, t.shape)
        return temb, linear(w, "condition_embedder.time_proj", F.silu(temb)).unflatten(-1, (6, c.dim))

    def __call__(self, x, t, text_kv, ctx):
        """x [B, F, C, H, W], t [B, F]; ctx does self attention (and remembers K, V). Returns the velocity, like x."""
        c, w = self.c, self.w
        B, Fr, _, H, W = x.shape
        h, wd = H // 2, W // 2
        y = F.conv3d(x.transpose(1, 2), w["patch_embedding.weight"], w["patch_embedding.bias"], stride=(1, 2, 2))
        y = y.flatten(2).transpose(1, 2)
        temb, tp = self.time(t)
        reps = y.shape[1] // t.shape[1]  # tokens that share one timestep: n, or F*n if one t is given for the chunk
        each = lambda m: m.repeat_interleave(reps, 1)
        ctx.begin(c, Fr, h, wd)
        for i in range(c.layers):
            b = f"blocks.{i}."
            m = [each(z) for z in (w[b + "scale_shift_table"][:, None] + tp).unbind(2)]
            n = ln(y, c.eps) * (1 + m[1]) + m[0]
            q = rms(linear(w, b + "attn1.to_q", n), w[b + "attn1.norm_q.weight"], c.eps).unflatten(2, (c.heads, -1))
            k = rms(linear(w, b + "attn1.to_k", n), w[b + "attn1.norm_k.weight"], c.eps).unflatten(2, (c.heads, -1))
            v = linear(w, b + "attn1.to_v", n).unflatten(2, (c.heads, -1))
            y = y + linear(w, b + "attn1.to_out.0", ctx.attend(i, q, k, v)) * m[2]
            n = ln(y, c.eps, w[b + "norm2.weight"], w[b + "norm2.bias"])
            q = rms(linear(w, b + "attn2.to_q", n), w[b + "attn2.norm_q.weight"], c.eps).unflatten(2, (c.heads, -1))
            y = y + linear(w, b + "attn2.to_out.0", attend(q, *text_kv[i]))
            n = ln(y, c.eps) * (1 + m[4]) + m[3]
            y = y + linear(w, b + "ffn.net.2", F.gelu(linear(w, b + "ffn.net.0.proj", n), approximate="tanh")) * m[5]
        ctx.end()
        m = w["scale_shift_table"][:, None] + temb[:, :, None]
        z = linear(w, "proj_out", ln(y, c.eps) * (1 + each(m[:, :, 1])) + each(m[:, :, 0]))
        z = z.view(B, Fr, h, wd, 2, 2, c.out_ch)  # channel is the fastest index
        return z.permute(0, 1, 6, 2, 4, 3, 5).reshape(B, Fr, c.out_ch, H, W)


# ------------------------------------------------------------------------------------------------------ attention contexts


class Full:
    """All frames of the call, optionally with a boolean frame mask [Fq, Fk]; frame positions given (default 0..F-1)."""

    def __init__(self, frame_mask=None, positions=None):
        self.m, self.p = frame_mask, positions

    def begin(self, c, Fr, h, w):
        n = h * w
        p = torch.arange(Fr) if self.p is None else self.p
        self.ang, self.style = rope_angles(c.head_dim, p, h, w), c.style
        self.mask = None if self.m is None else self.m.repeat_interleave(n, 0).repeat_interleave(n, 1)

    def attend(self, i, q, k, v):
        return attend(rotate(q, self.ang, self.style), rotate(k, self.ang, self.style), v, self.mask)

    def end(self):
        pass


def block_causal(frames, chunk, window=-1, sink=0, first=None):
    """Frame mask of the cached rollout. first: size of the first chunk (1 for an independent first frame)."""
    ends, a = torch.zeros(frames, dtype=torch.long), 0
    while a < frames:
        b = min(frames, a + (first if a == 0 and first else chunk))
        ends[a:b] = b
        a = b
    q, k = ends[:, None], torch.arange(frames)[None]
    ok = k < q
    if window > 0:  # after eviction: sink frames and the last (window - sink) ones
        ok &= (k >= q - (window - sink)) | (k < sink)
    return ok


def teacher_forcing(frames, chunk, window=-1, sink=0):
    """Mask over [clean frames | noisy frames]: noisy chunk sees itself and all clean frames of earlier chunks."""
    cc = block_causal(frames, chunk, window, sink)
    own = torch.arange(frames)[:, None] // chunk == torch.arange(frames)[None] // chunk
    return torch.cat([torch.cat([cc, torch.zeros_like(cc)], 1), torch.cat([cc & ~own, own], 1)], 0)


@dataclass
class Slot:
    frame: int  # absolute frame number
    k: list = field(default_factory=list)  # per layer [B, n, heads, hd], raw (after RMSNorm, before RoPE)
    v: list = field(default_factory=list)
    pos: float = 0.0  # time position given at write time (absolute policy)


class RollingKV:
    """The cache of one network. Frames are kept in order; no data moves on eviction.

    policy  absolute   position of a frame = its number (+ offset), fixed when written    Self-Forcing, LongLive 1 and 2
            relative   position = place in the cache, queries at the tail                 LongLive infinity, FastVideo
    Rolling Forcing has a context of its own (RollingForcingKV). Keys are stored raw and rotated when used; for `absolute` this equals storing rotated keys bit for bit.
    """

    def __init__(self, window, sink=0, policy="absolute"):
        self.W, self.S, self.policy = window, sink, policy
        self.slots, self.offset = [], 0.0
        self.pins = None  # frames of the pinned scene chunk (LongLive 2)
        self.protect_sink = False  # recache: sink keys and values are not overwritten (LongLive 1)
        self.use_frame_mask = None  # recache block-causally (Krea) instead of with full attention
        self.start = 0

    def at(self, start):
        self.start = start
        return self

    # -- bookkeeping
    def effective_sink(self):
        if self.pins is None:
            return self.S
        first = next((i for i, s in enumerate(self.slots) if s.frame == self.pins[0]), None)
        return self.S + len(self.pins) if first == self.S else self.S

    def begin(self, c, Fr, h, w):
        newest = self.slots[-1].frame if self.slots else -1
        new = [f for f in range(self.start, self.start + Fr) if f > newest]
        if new and self.W > 0 and len(self.slots) + len(new) > self.W:
            e, n = self.effective_sink(), len(self.slots) + len(new) - self.W
            assert n <= len(self.slots) - e, "sink and chunk do not fit the window"
            del self.slots[e:e + n]  # eviction happens once, at the first pass of a chunk
        for f in new:
            self.slots.append(Slot(f, [None] * c.layers, [None] * c.layers, f + self.offset))
        have = {s.frame: s for s in self.slots}
        self.cur = [have.get(f) for f in range(self.start, self.start + Fr)]  # None: evicted (recache of the oldest)
        self.c, self.n, self.h, self.w, self.Fr = c, h * w, h, w, Fr

    def positions(self):
        """(time position of every cached frame in order, of every query frame)."""
        if self.policy == "relative":
            p = torch.arange(len(self.slots), dtype=torch.float64)
            return p, p[len(p) - self.Fr:]
        p = torch.tensor([s.pos for s in self.slots], dtype=torch.float64)
        q = torch.arange(self.Fr, dtype=torch.float64) + self.start + self.offset
        return p, q

    def attend(self, i, q, k, v):
        c, n = self.c, self.n
        for j, s in enumerate(self.cur):
            if s is None or (self.protect_sink and self.slots.index(s) < self.S):
                continue
            s.k[i], s.v[i] = k[:, j * n:(j + 1) * n], v[:, j * n:(j + 1) * n]
        pk, pq = self.positions()
        K, V = (torch.cat([z(s) for s in self.slots], 1) for z in (lambda s: s.k[i], lambda s: s.v[i]))
        K = rotate(K, rope_angles(c.head_dim, pk, self.h, self.w), c.style)
        q = rotate(q, rope_angles(c.head_dim, pq, self.h, self.w), c.style)
        m = self.use_frame_mask
        return attend(q, K, V, None if m is None else m.repeat_interleave(n, 0).repeat_interleave(n, 1))

    def end(self):
        pass


class RollingForcingKV:
    """Context of Rolling Forcing. A pass covers up to `steps` chunks, each at its own noise level; only its first
    chunk is ever cached. Chunk 0 is the anchor: its keys are rotated to just before the working keys."""

    def __init__(self, chunk=3, attend_frames=21, capacity=24):
        self.n, self.A, self.cap = chunk, attend_frames, capacity
        self.blocks = []  # Slot per chunk; .frame = first frame of the chunk
        self.update = False

    def at(self, start, update=False):
        self.start, self.update = start, update
        return self

    def begin(self, c, Fr, h, w):
        self.c, self.h, self.w, self.Fr = c, h, w, Fr
        if not self.blocks or self.start > self.blocks[-1].frame:
            if (len(self.blocks) + 1) * self.n > self.cap:
                del self.blocks[1]
            self.blocks.append(Slot(self.start, [None] * c.layers, [None] * c.layers))

    def attend(self, i, q, k, v):
        c, h, w, n, me = self.c, self.h, self.w, self.n, self.blocks[-1]
        own = n * h * w
        me.k[i], me.v[i] = k[:, :own], v[:, :own]
        rot = lambda x, f: rotate(x, rope_angles(c.head_dim, f + torch.arange(x.shape[1] // (h * w)), h, w), c.style)
        q = rot(q, self.start)
        if me is self.blocks[0]:
            return attend(q, rot(k, self.start), v)
        if self.update:
            # the last A frames of the cache; the anchor belongs to them only while the cache is not longer than A
            part = self.blocks[-(self.A // n):]
            K = torch.cat([rot(b.k[i], b.frame) for b in part], 1)
            return attend(q, K, torch.cat([b.v[i] for b in part], 1))
        room = (self.A - self.Fr) // n - 1  # working chunks that fit beside the queries and the anchor
        work = self.blocks[1:-1][-room:] if room > 0 else []
        a = self.blocks[0]
        K = [rot(a.k[i], self.start - (len(work) + 1) * n)] + [rot(b.k[i], b.frame) for b in work] + [rot(k, self.start)]
        return attend(q, torch.cat(K, 1), torch.cat([a.v[i]] + [b.v[i] for b in work] + [v], 1))

    def end(self):
        pass


# ------------------------------------------------------------------------------------------------------------- samplers


def sigma_table(shift, n=1000):
    """The 1000-entry table of every x0-renoise sampler, fp32: sigma_i, t_i = 1000 sigma_i; i = 0 is pure noise."""
    s = torch.linspace(1.0, 0.0, n + 1)[:-1]
    s = shift * s / (1 + (shift - 1) * s)
    return s, s * 1000


def warp(steps, shift):
    """[1000, 750, 500, 250] -> [1000, 937.5, 833.33, 625]: the number D means table index 1000 - D; 0 means t = 0."""
    _, t = sigma_table(shift)
    return torch.cat([t, torch.zeros(1)])[1000 - torch.tensor(steps)]


def sigma_of(t, shift):
    """sigma of the nearest table entry, as the originals look it up. t = 0 gives the last entry (0.00498 at shift 5)."""
    s, tt = sigma_table(shift)
    return s[(tt.double()[None] - t.flatten().double()[:, None]).abs().argmin(1)].view(t.shape)


def x0_from(v, x, t, shift):  # fp64, rounded back; t [B, F]
    return (x.double() - sigma_of(t, shift).double()[..., None, None, None] * v.double()).to(v.dtype)


def renoise(x0, noise, t, shift):
    s = sigma_of(t, shift)[..., None, None, None]
    return ((1 - s) * x0 + s * noise).to(noise.dtype)


class X0Renoise:
    """4-step sampler of Self-Forcing, LongLive 1, Causal-Forcing, Krea, CausVid."""

    def __init__(self, steps=(1000, 750, 500, 250), shift=5.0, do_warp=True):
        self.shift = shift
        self.t = warp(list(steps), shift) if do_warp else torch.tensor([float(s) for s in steps])

    def run(self, model, x, randn, clamp=None):
        """model(x, t[B,F]) -> v; randn(like) -> fresh noise. clamp(x, t) -> (x, t) re-imposes given frames."""
        B, Fr = x.shape[:2]
        for i, t in enumerate(self.t):
            tt = torch.full((B, Fr), float(t))
            if clamp:
                x, tt = clamp(x, tt)
            x0 = x0_from(model(x, tt), x, tt, self.shift)
            if i + 1 < len(self.t):
                x = renoise(x0, randn(x0), torch.full((B, Fr), float(self.t[i + 1])), self.shift)
        return clamp(x0, tt)[0] if clamp else x0


class UniPC:
    """LongLive 2: UniPC (order 2, bh2) started afresh for every chunk; no new noise. Table of the original Wan code."""

    def __init__(self, n=4, shift=5.0):
        u = torch.linspace(float(torch.tensor(0.999, dtype=torch.float32)), 0.0, n + 1, dtype=torch.float64)[:-1]
        s = shift * u / (1 + (shift - 1) * u)
        self.t = (s * 1000).to(torch.int64)  # truncated: 999, 937, 833, 624 for n = 4, shift 5
        self.s = torch.cat([s, torch.zeros(1, dtype=torch.float64)]).float()

    @staticmethod
    def lam(s):
        return torch.log(1 - s) - torch.log(s)

    def run(self, model, x, randn=None, clamp=None):
        S, N, m, last, order = self.s, len(self.t), [], None, 0
        B, Fr = x.shape[:2]
        for i in range(N):
            tt = torch.full((B, Fr), float(self.t[i]))
            if clamp:
                x, tt = clamp(x, tt)
            X = x - S[i] * model(x, tt)
            if i > 0:  # corrector, with the order of the previous predictor
                h = self.lam(S[i]) - self.lam(S[i - 1])
                k, E = -h, torch.expm1(-h)
                base = S[i] / S[i - 1] * last - (1 - S[i]) * E * m[-1]
                if order == 1:
                    corr = 0.5 * (X - m[-1])
                else:
                    r = (self.lam(S[i - 2]) - self.lam(S[i - 1])) / h
                    p1 = E / k - 1
                    b1, b2 = p1 / E, (p1 / k - 0.5) * 2 / E
                    rho1 = (b1 - b2) / (1 - r)
                    corr = rho1 * (m[-2] - m[-1]) / r + (b1 - rho1) * (X - m[-1])
                x = base - (1 - S[i]) * E * corr
            m = (m + [X])[-2:]
            order = min(2, N - i, i + 1)
            last = x
            if S[i + 1] == 0:
                x = m[-1]
            else:
                h = self.lam(S[i + 1]) - self.lam(S[i])
                E = torch.expm1(-h)
                x = S[i + 1] / S[i] * last - (1 - S[i + 1]) * E * m[-1]
                if order == 2:
                    r = (self.lam(S[i - 1]) - self.lam(S[i])) / h
                    x = x - (1 - S[i + 1]) * E * 0.5 * (m[-2] - m[-1]) / r
            if clamp:
                x, _ = clamp(x, tt)
        return x


class TwoExpert(X0Renoise):
    """Causal A14B (FastVideo): while t >= boundary the high-noise network predicts the state at the boundary, not x0.
    `run` gets model(x, t, high) and both networks need the clean pass afterwards (each has its own cache)."""

    def __init__(self, steps=(1000, 850, 700, 550, 350, 275, 200, 125), shift=12.0, boundary=0.875):
        super().__init__(steps, shift)
        self.b = boundary * 1000

    def run(self, model, x, randn, clamp=None):
        B, Fr = x.shape[:2]
        full = lambda t: torch.full((B, Fr), float(t))
        sb = sigma_of(full(self.b), self.shift)[..., None, None, None]
        high = [float(t) >= self.b for t in self.t]
        for i, t in enumerate(self.t):
            v = model(x, full(t), high[i])
            s = sigma_of(full(t), self.shift)[..., None, None, None]
            if high[i]:
                xb = (x.double() - (s.double() - sb.double()) * v.double()).to(v.dtype)
                noise = randn(xb)  # drawn in any case, so that the stream of random numbers stays in step
                if i + 1 < len(high) and high[i + 1]:
                    sn = sigma_of(full(self.t[i + 1]), self.shift)[..., None, None, None]
                    al = (1 - sn) / (1 - sb)
                    x = (al * xb + torch.sqrt(sn ** 2 - (al * sb) ** 2) * noise).to(noise.dtype)
                else:
                    x = xb  # handed to the low-noise network as it is
            else:
                x0 = x0_from(v, x, full(t), self.shift)
                if i + 1 < len(self.t):
                    x = renoise(x0, randn(x0), full(self.t[i + 1]), self.shift)
        return x0


def rolling_forcing(net, text, noise, steps=(1000, 800, 600, 400, 200), shift=5.0, chunk=3, draws=None):
    """Whole rollout of Rolling Forcing over noise [B, F, C, H, W]; draws(window, chunk, like) gives the renoise noise."""
    t_list, nb, kv = warp(list(steps), shift), noise.shape[1] // chunk, net.text_kv(text)
    k, cache, out = len(t_list), RollingForcingKV(chunk), torch.zeros_like(noise)
    state = noise.clone()  # chunk j: pure noise until it enters the window, then its renoised estimate
    for wi in range(nb + k - 1):
        s, e = max(0, wi - k + 1), min(nb - 1, wi)
        a, z = s * chunk, (e + 1) * chunk
        lev = [wi - j for j in range(s, e + 1)]  # step index of each chunk: the oldest is the cleanest
        t = torch.cat([torch.full((noise.shape[0], chunk), float(t_list[x])) for x in lev], 1)
        x0 = x0_from(net(state[:, a:z], t, kv, cache.at(a)), state[:, a:z], t, shift)
        out[:, a:z] = x0
        for j, x in zip(range(s, e + 1), lev):
            if x < k - 1:
                p = slice(j * chunk, (j + 1) * chunk)
                tn = torch.full((noise.shape[0], chunk), float(t_list[x + 1]))
                state[:, p] = renoise(out[:, p], draws(wi, j, out[:, a:z])[:, p.start - a:p.stop - a], tn, shift)
        net(x0[:, :chunk], torch.zeros(noise.shape[0], chunk), kv, cache.at(a, update=True))
    return out


# ------------------------------------------------------------------------------------------------------------- rollout


class Generator:
    """Chunked rollout. One call of `chunk` makes `n` latent frames; a prompt may be changed between calls."""

    def __init__(self, net, text, sampler, window=21, sink=0, policy="absolute", context_t=0.0, seed=0, keep=None):
        self.net, self.sampler, self.context_t = net, sampler, context_t
        self.cache = RollingKV(window, sink, policy)
        self.text = net.text_kv(text)
        self.f, self.seed, self.history, self.keep = 0, seed, [], window if keep is None else keep
        self.calls, self.new_sink = 0, None

    def noise(self, like, what):
        """Seed of (stream, chunk start, draw): independent of how the rollout was cut or of earlier switches."""
        g = torch.Generator().manual_seed((self.seed * 1000003 + self.f * 97 + what) % 2**31)
        return torch.randn(like.shape, generator=g)

    def forward(self, x, t, start):
        self.calls += 1
        return self.net(x, t, self.text, self.cache.at(start))

    def commit(self, x):
        """Clean pass: overwrites K, V of these frames with those of the finished latents at the context noise level."""
        B, n = x.shape[:2]
        self.forward(x, torch.full((B, n), self.context_t), self.f)
        self.history = (self.history + list(x.unbind(1)))[-self.keep:]
        self.f += n
        return x

    def given(self, x):
        """Start from (or continue with) finished latents: an encoded image or clip."""
        return self.commit(x)

    def chunk(self, shape, noise=None, draws=None, first_clean=None):
        """shape (B, n, C, H, W). first_clean [B, 1, C, H, W]: image latent held clean inside this chunk (LongLive 2 I2V)."""
        if self.new_sink not in (None, self.f):
            self.cache.slots, self.new_sink = [s for s in self.cache.slots if s.frame >= self.new_sink], None
        x = self.noise(torch.empty(shape), 0) if noise is None else noise
        it = iter(draws) if draws is not None else None
        n_draw = [0]

        def randn(like):
            n_draw[0] += 1
            return next(it) if it is not None else self.noise(like, n_draw[0])

        clamp = None
        if first_clean is not None:
            def clamp(x, t):
                x, t = x.clone(), t.clone()
                x[:, :1], t[:, :1] = first_clean, 0
                return x, t
        x0 = self.sampler.run(lambda x, t: self.forward(x, t, self.f), x, randn, clamp)
        return self.commit(x0)

    def switch(self, text, mode="recache"):
        """New prompt. cross: only the text keys change. recache: also the cached frames are recomputed under it."""
        self.text = self.net.text_kv(text)
        if mode == "cross" or self.f == 0:
            return
        n = min(self.f, self.cache.W if self.cache.W > 0 else self.f, len(self.history))
        x = torch.stack(self.history[-n:], 1)
        if mode == "recache":  # LongLive 1, global sink: one pass over the window, full attention, sink untouched
            # protection starts only when the pass does not begin at frame 0
            self.cache.protect_sink = self.f - n > 0
            self._recache(x, n)
            self.cache.protect_sink = False
        elif mode == "recache-all":  # LongLive 1, global_sink false: the oldest frames of the window become the sink
            self._relabel(n)
            self._recache(x, n)
        elif mode == "recache-last":  # gst-wan's recache_frames: the last chunk alone, until the new prompt has one of its own
            self.cache.slots = []
            self._recache(x[:, -self.chunk_size:], self.chunk_size)
            self.new_sink = self.f
        elif mode == "recompute":  # Krea: a new cache, block-causal, positions from 0
            chunk = self.chunk_size
            self.cache.slots = []
            self.cache.use_frame_mask = block_causal(n, chunk)
            self._recache(x, n)
            self.cache.use_frame_mask = None
        else:
            raise ValueError(mode)

    chunk_size = 3

    def _relabel(self, n):
        """The last n frames take the cache's places in order (the sink's old frames are dropped)."""
        self.cache.slots = self.cache.slots[:n] if len(self.cache.slots) > n else self.cache.slots
        for s, f in zip(self.cache.slots, range(self.f - n, self.f)):
            s.frame, s.pos = f, f + self.cache.offset

    def _recache(self, x, n):
        self.calls += 1
        # frames that the pass covers may lie under the sink's places: queries exist for them, but no place to write
        self.net(x, torch.full(x.shape[:2], self.context_t), self.text, self.cache.at(self.f - n))


# ---------------------------------------------------------------------------------------------------------- self-tests


def _setup(style="original", seed=0, **kw):
    c = Cfg(style=style, **kw)
    g = torch.Generator().manual_seed(100 + seed)
    text = torch.zeros(1, c.text_len, c.text_dim)
    text[:, :7] = torch.randn(1, 7, c.text_dim, generator=g)
    text2 = torch.zeros_like(text)
    text2[:, :4] = torch.randn(1, 4, c.text_dim, generator=g)
    return c, Net(c, random_weights(c, seed)), text, text2, g


def _close(a, b, tol=2e-5):
    d = (a - b).abs().max().item() / (b.abs().max().item() + 1e-12)
    assert d < tol, d
    return d


def test_masked_pass():
    """Cached clean rollout = one masked pass, without and with eviction and sink (absolute positions)."""
    c, net, text, _, g = _setup()
    x = torch.randn(1, 18, c.in_ch, 4, 6, generator=g)
    t, kv = torch.zeros(1, 18), net.text_kv(text)
    for chunk, W, S in ((3, -1, 0), (3, 18, 0), (3, 9, 0), (3, 9, 3), (2, 8, 4), (6, 12, 6), (1, 5, 1)):
        cache, out = RollingKV(W, S), []
        for f in range(0, 18, chunk):
            out.append(net(x[:, f:f + chunk], t[:, f:f + chunk], kv, cache.at(f)))
        ref = net(x, t, kv, Full(block_causal(18, chunk, W, S)))
        print(f"  chunk {chunk} window {W} sink {S}: {_close(torch.cat(out, 1), ref):.1e}")


def test_window_covers_all():
    """A window that covers everything = full causal attention, and relative = absolute then."""
    c, net, text, _, g = _setup()
    x = torch.randn(1, 12, c.in_ch, 4, 6, generator=g)
    t, kv, outs = torch.full((1, 12), 500.0), net.text_kv(text), []
    for W, policy in ((-1, "absolute"), (12, "absolute"), (12, "relative")):
        cache = RollingKV(W, 0, policy)
        outs.append(torch.cat([net(x[:, f:f + 3], t[:, f:f + 3], kv, cache.at(f)) for f in range(0, 12, 3)], 1))
    assert torch.equal(outs[0], outs[1]) and torch.equal(outs[0], outs[2])
    one = net(x, t, kv, RollingKV(-1, 0).at(0))  # a single chunk of everything = plain bidirectional attention
    print(f"  one chunk of all frames against Full: {_close(one, net(x, t, kv, Full())):.1e}")


def test_teacher_forcing():
    """A denoising pass of chunk j over the clean cache = the noisy half of the [clean | noisy] training pass."""
    c, net, text, _, g = _setup()
    clean, noisy = (torch.randn(1, 12, c.in_ch, 4, 6, generator=g) for _ in range(2))
    t, kv = torch.rand(1, 12, generator=g) * 1000, net.text_kv(text)
    for W, S in ((-1, 0), (6, 3)):
        p = torch.arange(12).repeat(2)
        ref = net(torch.cat([clean, noisy], 1), torch.cat([torch.zeros(1, 12), t], 1), kv,
                  Full(teacher_forcing(12, 3, W, S), p))[:, 12:]
        cache, out = RollingKV(W, S), []
        for f in range(0, 12, 3):
            out.append(net(noisy[:, f:f + 3], t[:, f:f + 3], kv, cache.at(f)))
            net(clean[:, f:f + 3], torch.zeros(1, 3), kv, cache.at(f))
        print(f"  window {W} sink {S}: {_close(torch.cat(out, 1), ref):.1e}")


def test_overwrite():
    """Denoising passes leave no trace: the cache after (noisy, noisy, clean) = after (clean)."""
    c, net, text, _, g = _setup()
    kv, a, b = net.text_kv(text), RollingKV(6, 3), RollingKV(6, 3)
    for f in range(0, 15, 3):
        x = torch.randn(1, 3, c.in_ch, 4, 6, generator=g)
        for t in (999.0, 625.0):
            net(torch.randn(x.shape, generator=g), torch.full((1, 3), t), kv, a.at(f))
        net(x, torch.zeros(1, 3), kv, a.at(f))
        net(x, torch.zeros(1, 3), kv, b.at(f))
    assert [s.frame for s in a.slots] == [0, 1, 2, 12, 13, 14]
    assert all(torch.equal(p, q) for s, u in zip(a.slots, b.slots) for p, q in zip(s.k + s.v, u.k + u.v))


def test_relative_shift_invariance():
    """With relative positions the same content gives the same output wherever it starts; with absolute it does not."""
    c, net, text, _, g = _setup()
    x, kv = torch.randn(1, 15, c.in_ch, 4, 6, generator=g), net.text_kv(text)
    for policy in ("relative", "absolute"):
        r = []
        for f0 in (0, 5000):
            cache = RollingKV(9, 3, policy)
            r.append(torch.cat([net(x[:, f:f + 3], torch.zeros(1, 3), kv, cache.at(f0 + f)) for f in range(0, 15, 3)], 1))
        same = torch.equal(*r)
        assert same == (policy == "relative")
        if not same:
            print(f"  absolute, start 5000 instead of 0: max difference {(r[0] - r[1]).abs().max():.1e} (rotation is relative)")
            _close(*r, tol=1e-4)


def test_long():
    """1,500 latent frames (6,000 video frames), beyond the 1,024 rows of the usual rotary tables; memory stays flat."""
    c, net, text, text2, _ = _setup(heads=1, head_dim=12, layers=1, ffn=16, text_len=8)
    for policy in ("absolute", "relative"):
        gen = Generator(net, text, X0Renoise((1000, 500)), 12, 3, policy, seed=1)
        for i in range(500):
            if i == 250:
                gen.switch(text2)
            y = gen.chunk((1, 3, c.in_ch, 2, 2))
        assert gen.f == 1500 and torch.isfinite(y).all() and len(gen.cache.slots) == 12
        assert [s.frame for s in gen.cache.slots] == [0, 1, 2] + list(range(1491, 1500))
        print(f"  {policy}: frames {gen.f}, forwards {gen.calls}, last std {y.std():.3f}")


def test_deterministic():
    """Same seed, same result; a switch changes only what comes after it; switching to the same prompt is harmless."""
    c, net, text, text2, _ = _setup()

    def run(sw=None, mode="recache", other=None, seed=3):
        gen = Generator(net, text, X0Renoise(), 12, 3, seed=seed)
        out = []
        for i in range(7):
            if i == sw:
                gen.switch(text2 if other is None else other, mode)
            out.append(gen.chunk((1, 3, c.in_ch, 4, 6)))
        return torch.cat(out, 1)

    a, b = run(), run()
    assert torch.equal(a, b) and not torch.equal(a, run(seed=4))
    for mode in ("cross", "recache", "recache-all", "recache-last"):
        s = run(5, mode)
        assert torch.equal(a[:, :15], s[:, :15])
        print(f"  switch at 15 by {mode}: change of the next chunk {(a - s)[:, 15:18].abs().mean() / a.abs().mean():.3f}")
    assert torch.equal(a, run(5, "cross", text))


def test_recache_is_what_it_says():
    """After `recache` without eviction the cache holds K, V of one full-attention clean pass under the new prompt."""
    c, net, text, text2, g = _setup()
    gen = Generator(net, text, X0Renoise(), 12, 0, seed=3)
    for _ in range(3):
        gen.chunk((1, 3, c.in_ch, 4, 6))
    x = torch.stack(gen.history, 1)
    gen.switch(text2)
    ref = RollingKV(12, 0)
    net(x, torch.zeros(1, 9), net.text_kv(text2), ref.at(0))
    assert all(torch.equal(p, q) for s, u in zip(gen.cache.slots, ref.slots) for p, q in zip(s.k + s.v, u.k + u.v))


def test_samplers():
    """Golden numbers of the schedules on a scalar model v = cos(0.7 i)."""
    assert [round(float(x), 4) for x in warp([1000, 750, 500, 250], 5)] == [1000.0, 937.5, 833.3333, 625.0]
    assert [round(float(x), 3) for x in warp([1000, 750, 500, 250], 8)] == [1000.0, 960.0, 888.889, 727.273]
    assert UniPC(4, 5.0).t.tolist() == [999, 937, 833, 624]
    assert abs(float(sigma_of(torch.zeros(1, 1), 5)) - 0.00498008) < 1e-7
    i = [0]

    def model(x, t):
        i[0] += 1
        return torch.full_like(x, math.cos(0.7 * (i[0] - 1)))

    one = torch.ones(1, 1, 1, 1, 1)
    y = UniPC(4, 5.0).run(model, one)
    i[0] = 0
    z = X0Renoise().run(model, one, lambda x: torch.full_like(x, 0.25))
    print(f"  UniPC 4 steps shift 5: {y.item():.7f}   x0-renoise with noise 0.25: {z.item():.7f}")


def test_image_start():
    """An image latent: as a committed first frame (Self-Forcing) and held clean inside the first chunk (LongLive 2)."""
    c, net, text, _, g = _setup()
    img = torch.randn(1, 1, c.in_ch, 4, 6, generator=g)
    gen = Generator(net, text, X0Renoise(), 13, 1, seed=5)
    gen.given(img)
    for _ in range(3):
        gen.chunk((1, 3, c.in_ch, 4, 6))
    assert torch.equal(gen.history[0], img[:, 0]) and gen.f == 10
    gen = Generator(net, text, UniPC(4), 32, 8, seed=5)
    y = gen.chunk((1, 8, c.in_ch, 4, 6), first_clean=img)
    assert torch.equal(y[:, :1], img)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.inference_mode():
        for name, f in list(globals().items()):
            if name.startswith("test_"):
                print(name)
                f()
    print("all passed")
