#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Write causal.safetensors: rollouts of causal models by causal_reference.py, in float32 on the CPU. Weights, texts, noise and every draw
are stored, so nothing needs a random generator.

  python3 tests/parity/make_causal_reference.py tests/parity/causal.safetensors   (needs torch 2.11.0)
"""
import sys, json
import torch
from safetensors.torch import save_file
import causal_reference as R

torch.set_num_threads(1)
c = R.Cfg(head_dim=32)
out, meta = {}, {"config": json.dumps(dict(c.__dict__, patch=[1, 2, 2]))}
g = torch.Generator().manual_seed(2026)
W = R.random_weights(c, 7)
net = R.Net(c, W)
out.update({"w." + k: v for k, v in W.items()})
text = [torch.zeros(1, c.text_len, c.text_dim) for _ in range(3)]
for i, n in enumerate((7, 4, 11)):
    text[i][:, :n] = torch.randn(1, n, c.text_dim, generator=g)
    out[f"text.{i}"] = text[i]
H, Wd = 4, 6
rnd = lambda *s: torch.randn(*s, generator=g)
noise, img = rnd(1, 48, c.in_ch, H, Wd), rnd(1, 1, c.in_ch, H, Wd)
out["noise"], out["image"] = noise, img


def roll(name, gen, frames, chunk, nd, acts={}, first=None, given=False, about=""):
    """acts: {frame: (what, argument)} before that chunk; nd draws a chunk."""
    draws, res, f = [], [], 0
    if given:
        gen.given(img); res.append(img); f = 1
    while f < frames:
        a = acts.get(f)
        for what, arg in (a or []):
            if what == "text": gen.switch(text[arg[0]], arg[1])
            if what == "offset": gen.cache.offset = arg
        d = [rnd(1, chunk, c.in_ch, H, Wd) for _ in range(nd)]
        draws += d
        res.append(gen.chunk((1, chunk, c.in_ch, H, Wd), noise[:, f:f + chunk], d or None, first if f == 0 else None))
        for what, arg in (a or []):
            if what == "pin": gen.cache.pins = list(range(f, f + chunk))
        f += chunk
    out[name] = torch.cat(res, 1)
    if draws: out[name + ".draws"] = torch.stack(draws)
    meta[name] = about


with torch.inference_mode():
    one = R.Net(c, W)
    t = torch.tensor([[0., 0., 0., 937.5, 937.5, 937.5]])
    out["net.t"], out["net.full"] = t, net(noise[:, :6], t, net.text_kv(text[0]), R.Full())
    out["net.block_causal"] = net(noise[:, :6], t, net.text_kv(text[0]), R.Full(R.block_causal(6, 3)))
    S = R.X0Renoise
    roll("sf.global", R.Generator(net, text[0], S(), 21, 0), 21, 3, 3, about="Self-Forcing: 4 steps shift 5, window 21, sink 0, 21 frames")
    roll("sf.w9s3", R.Generator(net, text[0], S(), 9, 3), 30, 3, 3, about="window 9 sink 3, absolute positions, 30 frames")
    roll("sf.w9s3.relative", R.Generator(net, text[0], S(), 9, 3, "relative"), 30, 3, 3, about="the same, relative positions")
    roll("sf.image", R.Generator(net, text[0], S(), 21, 0), 10, 3, 3, given=True, about="image latent committed first, then 3 chunks of 3")
    for m in ("cross", "recache", "recache-all"):
        for f in (9, 24):
            roll(f"switch.{m}.{f}", R.Generator(net, text[0], S(), 12, 3), 36, 3, 3, {f: [("text", (1, m))]}, about=f"LongLive 1: window 12 sink 3, prompt 1 from frame {f}, mode {m}")
    U = R.UniPC
    roll("ll2.plain", R.Generator(net, text[0], U(4, 5.0), 8, 2), 16, 2, 0, about="LongLive 2 scaled down: chunk 2 window 8 sink 2, UniPC 4 steps")
    roll("ll2.image", R.Generator(net, text[0], U(4, 5.0), 8, 2), 16, 2, 0, first=img, about="the same, image held clean in the first chunk")
    a = {4: [("text", (1, "cross")), ("offset", 8.0), ("pin", 0)], 8: [("text", (2, "cross")), ("offset", 16.0), ("pin", 0)], 28: [("text", (0, "cross")), ("offset", 24.0), ("pin", 0)]}
    roll("ll2.shots", R.Generator(net, text[0], U(4, 5.0), 8, 2), 40, 2, 0, a, about="three scene cuts at frames 4, 8, 28: offset 8 a shot and pins")
    dr = []
    def draws(w, j, like):
        dr.append(((w, j), rnd(*like.shape))); return dr[-1][1]
    out["rf"] = R.rolling_forcing(net, text[0], noise[:, :30], draws=draws)
    n = max(x.shape[1] for _, x in dr)
    out["rf.draws"] = torch.cat([torch.nn.functional.pad(x, (0, 0, 0, 0, 0, 0, 0, n - x.shape[1])) for _, x in dr])
    meta["rf"] = "Rolling Forcing, 30 frames; draws in call order (window, then chunk), zero padded to 15 frames"
    k = R.RollingKV(-1); k.use_frame_mask = R.block_causal(6, 3)
    net(noise[:, :6], torch.zeros(1, 6), net.text_kv(text[1]), k.at(0)); k.use_frame_mask = None
    out["krea.pass"] = net(noise[:, 6:9], torch.full((1, 3), 937.5), net.text_kv(text[1]), k.at(6))
    meta["krea.pass"] = "context of 6 frames recomputed block-causally at t 0, then one pass of 3 frames at 937.5, velocity"
    hi, lo = R.Net(c, R.random_weights(c, 8)), net
    out.update({"w2." + q: v for q, v in hi.w.items()})
    ds = {f: torch.stack([rnd(1, m, c.in_ch, H, Wd) for _ in range(8)]) for f, m in ((0, 1), (1, 3), (4, 3))}
    out.update({f"a14b.draws.{f}": d for f, d in ds.items()})
    def two_experts(kv):
        ca = {True: R.RollingKV(21), False: R.RollingKV(21)}
        res = []
        for f, d in ds.items():
            m, it = d.shape[2], iter(d)
            x0 = R.TwoExpert().run(lambda x, t, h: (hi if h else lo)(x, t, kv[h], ca[h].at(f)), noise[:, f:f + m], lambda l: next(it))
            for h in (False, True): (hi if h else lo)(x0, torch.zeros(1, m), kv[h], ca[h].at(f))
            res.append(x0)
        return torch.cat(res, 1)
    out["a14b"] = two_experts({True: hi.text_kv(text[0]), False: lo.text_kv(text[0])})
    out["a14b.shared"] = two_experts({True: hi.text_kv(text[0]), False: hi.text_kv(text[0])})
    meta["a14b.shared"] = "the same, both with the text keys of the high-noise expert"
    meta["a14b"] = "two experts (w2 = high noise), 8 steps shift 12 boundary 0.875, chunks 1+3+3, own cache and own text keys per expert"
    anchors, res = rnd(1, 5, c.in_ch, H, Wd), []
    kd = [torch.stack([rnd(1, 3, c.in_ch, H, Wd) for _ in range(4)]) for _ in range(5)]
    kv = net.text_kv(text[0])
    for keep in (True, False):
        res = []
        for b, d in enumerate(kd):
            k, it = R.RollingKV(-1), iter(d)
            if b:
                done = torch.cat(res, 1)
                first = done[:, -3:-2] if b == 1 else done[:, :1] if keep else anchors[:, b:b + 1]
                net(torch.cat([first, done[:, -2:]], 1), torch.zeros(1, 3), kv, k.at(0))
            res.append(R.X0Renoise((1000, 750, 500, 250, 0)).run(lambda x, t: net(x, t, kv, k.at(min(3 * b, 3))), noise[:, 3 * b:3 * b + 3], lambda l: next(it)))
        name = "krea.first_frame" if keep else "krea.anchors"
        out[name], out[name + ".draws"] = torch.cat(res, 1), torch.cat(kd)
    out["krea.given"] = anchors
    meta["krea.first_frame"] = "5 chunks of 3 of 5 steps, each from a context of 3 latents computed anew: the video's first and the last two"
    meta["krea.anchors"] = "the same, but from the third chunk on (of number B from 0) krea.given[B] stands for the first"
    for policy in ("absolute", "relative"):
        roll(f"switch.recache-last.{policy}", R.Generator(net, text[0], S(), 12, 3, policy), 36, 3, 3, {f: [("text", (t, "recache-last"))] for f, t in ((9, 1), (24, 2))}, about=f"window 12 sink 3, {policy} positions, prompts 1 and 2 from frames 9 and 24, of what is remembered the last chunk alone computed anew, and forgotten after the next one")
save_file({k: v.clone().contiguous() for k, v in out.items()}, sys.argv[1], meta)
print(len(out), "tensors", sum(v.numel() for v in out.values()) * 4, "bytes")
for k in ("sf.global", "sf.w9s3.relative", "ll2.shots", "rf", "a14b"): print(k, tuple(out[k].shape), f"{out[k].std():.6f} {out[k].flatten()[-1]:.6f}")
