"""Recurrent layers as plain NumPy loops, written from the papers; they also run on complex numbers, for complex step."""

import numpy as np


def sigmoid(a):
    return 1 / (1 + np.exp(-a))


def cut(a, c):
    """Clipping by the real part, so that a complex step passes where the real number does."""
    return a if c is None else np.where(a.real > c, c, np.where(a.real < -c, -c, a))


def normalised(a):
    d = a - a.mean(-1, keepdims=True)
    return d / np.sqrt((d * d).mean(-1, keepdims=True) + 1e-5)


def gate_rows(packed, gates):
    return dict(zip(gates, np.split(packed, len(gates)), strict=True))


def lstm_step(x, h, c, p, *, peephole=False, coupled=False, proj_size=0, layer_norm=False, clip=None, cell_clip=None, mask=1.0):
    """One step; p holds packed arrays by their names without suffix."""
    gates = "fgo" if coupled else "ifgo"
    wx, wh = gate_rows(p["weight_ih"], gates), gate_rows(p["weight_hh"], gates)
    bx, bh = (gate_rows(p.get(k, np.zeros(p["weight_ih"].shape[0])), gates) for k in ("bias_ih", "bias_hh"))
    peeps = gate_rows(p["peephole"], "fo" if coupled else "ifo") if peephole else {}
    gains = [gate_rows(p[k], gates) for k in ("gain_ih", "gain_hh")] if layer_norm else None
    c_old = c

    def gate(k, squash, seen):
        a, b = x @ wx[k].T, (mask * h) @ wh[k].T
        if layer_norm:
            a, b = gains[0][k] * normalised(a), gains[1][k] * normalised(b)
        total = a + bx[k] + b + bh[k] + (peeps[k] * seen if k in peeps else 0)
        return squash(cut(total, clip))

    f, g = gate("f", sigmoid, c_old), gate("g", np.tanh, None)
    i = 1 - f if coupled else gate("i", sigmoid, c_old)
    c = cut(f * c_old + i * g, cell_clip)
    o = gate("o", sigmoid, c)
    seen = p["gain_c"] * normalised(c) + p["bias_c"] if layer_norm else c
    h = o * np.tanh(cut(seen, clip))
    return (h @ p["weight_hr"].T if proj_size else h), c


def gru_step(x, h, p, *, reset="after", update="old", mask=1.0):
    wx, wh, bx = (gate_rows(p[k], "rzn") for k in ("weight_ih", "weight_hh", "bias_ih"))
    bh = gate_rows(p.get("bias_hh", np.zeros(p["bias_ih"].shape)), "rzn")
    m = mask * h
    r, z = (sigmoid(x @ wx[k].T + bx[k] + m @ wh[k].T + bh[k]) for k in "rz")
    inner = (r * m) @ wh["n"].T if reset == "before" else r * (m @ wh["n"].T + bh["n"])
    n = np.tanh(x @ wx["n"].T + bx["n"] + inner)
    return (1 - z) * n + z * h if update == "old" else (1 - z) * h + z * n


def run(step, x, state, valid=None, keep=None):
    """All steps of x [B, T, X]; where `valid` is False the state is held and the output is zero; `keep` zones out."""
    outputs = []
    for t in range(x.shape[1]):
        new = step(x[:, t], *state)
        new = new if isinstance(new, tuple) else (new,)
        if keep is not None:
            new = tuple(k[t] * s + (1 - k[t]) * n for k, s, n in zip(keep, state, new, strict=True))
        if valid is not None:
            v = valid[:, t, None]
            new = tuple(np.where(v, n, s) for n, s in zip(new, state, strict=True))
        outputs.append(np.where(valid[:, t, None], new[0], 0) if valid is not None else new[0])
        state = new
    return np.stack(outputs, 1), state
