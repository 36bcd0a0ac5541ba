"""Fuzzers: what attackers tried on version 0.1, drawn from seeds.

    python -m tinyrnn_tests.fuzz [KIND ...] [--seconds 600] [--seed 0]

Each kind is a function of a seed that raises AssertionError where something is wrong; `test_fuzz` runs the first seeds of
each.  A seed that fails prints itself, and the same seed fails again.
"""

import argparse
import contextlib
import functools
import json
import os
import random
import struct
import sys
import tempfile
import time
import traceback
import tracemalloc
import warnings
from pathlib import Path

import numpy as np

import tinyrnn as tr
from tinyrnn.backends import UnsupportedError, cache
from tinyrnn.backends.cpu import engine, runtime
from tinyrnn.errors import ArgumentError, FallbackWarning, LoadError, TinyRNNError
from tinyrnn.io.weights import checksum, read_weights
from tinyrnn.nn.module import Module
from tinyrnn.train import run as training
from tinyrnn.train.checkpoint import NAME

from . import recipes
from .aliasing import Case, weighted
from .graph_cases import run_compiled, values_for
from .programs import Program
from .running_error import assert_equal_computations

MOST = 64 * 2**20  # bytes that reading a file of a few kilobytes may take


# ---- compiled programs

def programs(seed):
    """A random program gives the interpreter's results or its error; what has no kernel says so."""
    program, found = Program(seed), {}
    error = caught(lambda: program.graph.run(program.values))
    other = caught(lambda: found.update(run_compiled(program.graph, program.values)[0]))
    if isinstance(other, UnsupportedError):
        return
    assert type(other) is type(error), f"compiled: {other!r}; the interpreter: {error!r}"
    if error is None:
        assert_equal_computations(program.graph, found, program.values)


def caught(run):
    """The error of ours that a call raises, if any."""
    try:
        run()
    except TinyRNNError as error:
        return error
    return None


def tried(run):
    """The results of a call, and the error of ours that it raises, if any."""
    try:
        return run(), None
    except TinyRNNError as error:
        return (), error


def refused(run):
    """Whether a call is refused with a LoadError that may be printed; it may raise nothing else."""
    try:
        run()
    except LoadError as error:
        message = str(error)
    except Exception as error:
        raise AssertionError(f"{type(error).__name__}: {error}") from error
    else:
        return False
    assert message.replace("\n", "").isprintable(), repr(message)
    return True


def scans(seed):
    """A scan whose parts share memory gives the values of a loop, and the slope of a complex step, on both backends."""
    case = Case(seed)
    rng = np.random.default_rng(seed)
    along = [rng.normal(size=a.shape) for a in case.arguments]
    want = case.loop(*case.arguments)
    slope = weighted(case.loop(*(a + 1e-30j * v for a, v in zip(case.arguments, along, strict=True)))).imag / 1e-30

    def gradients(*leaves):
        return tuple(tr.grad(weighted(case.tensors(*leaves)), list(leaves)))

    for backend in ("numpy", "cpu"):
        for x, y in zip(tr.compile(case.tensors, backend=backend)(*case.arguments), want, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-11, atol=1e-11 * max(1.0, np.abs(y).max(initial=0.0)), err_msg=backend)
        found = sum(float((g * v).sum()) for g, v in zip(tr.compile(gradients, backend=backend)(*case.arguments), along, strict=True))
        assert abs(found - slope) <= 1e-10 * max(1.0, abs(slope)), f"{backend}: slope {found}, by complex step {slope}"


def lengths(seed):
    """One program over changing sizes gives what the same function gives at each of them: its values, and its errors."""
    recipe, rng = recipes.Recipe(seed), np.random.default_rng(seed)
    program = tr.compile(recipe)
    order = [recipes.SHAPES[0], *rng.permutation(recipes.SHAPES)[:6]]
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        for batch, steps in order:
            given = recipes.arguments(rng, int(batch), int(steps))
            want, error = tried(lambda given=given: [y.numpy() for y in recipe(*map(tr.tensor, given))])
            got, other = tried(lambda given=given: program(*given))
            assert type(other) is type(error), f"{batch, steps}: compiled {other!r}; evaluated {error!r}"
            for i, (y, z) in enumerate(zip(got, want, strict=True)):
                np.testing.assert_allclose(y, z, 1e-9, 1e-9, err_msg=f"result {i} at {batch, steps}")
            if error is None and rng.random() < 0.3:
                for y, z in zip(got, tr.compile(recipe)(*given), strict=True):
                    np.testing.assert_array_equal(y, z, err_msg=f"bits at {batch, steps}")


# ---- cells

FUNCTIONS = "tanh sigmoid relu exp softplus abs sin softmax layer_norm rms_norm sum mean sign sqrt elu gelu".split()
ATOMS = "x[t] h[t-1] h[t-1] b W U V g 0.5 2 c[t-1] W.T x[t-1]".split()


def expression(r, depth):
    k = r.random()
    if depth == 0 or k < 0.15:
        return r.choice(ATOMS)
    inner = [expression(r, depth - 1) for _ in range(3)]
    if k < 0.45:
        return f"{inner[0]} {r.choice('+ - * / @ @ @ * **'.split())} {inner[1]}"
    if k < 0.6:
        return f"({inner[0]} {r.choice('+-*@')} {inner[1]})"
    if k < 0.85:
        return f"{r.choice(FUNCTIONS)}({inner[0]})"
    return r.choice([f"[{inner[0]}, {inner[1]}]", f"outer({inner[0]}, {inner[1]})", f"maximum({inner[0]}, {inner[1]})",
                     f"where({inner[0]} > {inner[1]}, {inner[1]}, {inner[2]})"])


def cells(seed):
    """What `Cell` accepts can be unrolled, rolled, printed and read again; all else is refused there."""
    r = random.Random(seed)
    lines = [f"h[t] = {expression(r, 3)}"]
    if r.random() < 0.5:
        lines.append(f"c[t] = {expression(r, 2)}")
    if r.random() < 0.3:
        lines.insert(0, f"z[t] = {expression(r, 2)}")
    try:
        cell = tr.Cell("\n".join(lines))
    except TinyRNNError:
        return
    try:
        cell.unroll(2)
        cell.rolled(3)
        cell.latex()
        assert tr.Cell(cell.canonical_text()) == cell
    except Exception as error:
        raise AssertionError(f"{lines}: {type(error).__name__}: {error}") from error


def budgets(seed):
    """A random cell, or a stock layer with random options, gives the same bits within a budget of memory, in as many parts as
    that takes, and without one."""
    r, rng = random.Random(seed), np.random.default_rng(seed)
    if r.random() < 0.3:
        layer, options = stock(r, seed)
        batch, steps = r.choice([(4, 200), (3, 400), (32, 50), (64, 30)])
        x, lengths = rng.normal(size=(batch, steps, 3)), rng.integers(1, steps + 1, batch) if r.random() < 0.3 else None

        def train(x, lengths):
            y, after = layer(x, lengths=lengths)
            loss = sum((v * v).sum() for v in (y, *after))
            return [y, loss, *tr.grad(loss, list(layer.parameters()))]

        within_budgets(layer, train, (x, lengths), options)
        return
    try:
        cell = tr.Cell("\n".join([f"h[t] = {expression(r, 3)}", *[f"c[t] = {expression(r, 2)}"] * (r.random() < 0.5)]))
        sizes = {n: 3 if n == "x" else 5 for n in cell.sizes}
        layer = tr.nn.Recurrent(cell, sizes, rng=seed, reverse=r.random() < 0.5, dtype=r.choice(["float32", "float64"]))
    except TinyRNNError:
        return
    batch, steps = r.choice([(4, 300), (3, 600), (8, 150), (1, 700), (64, 30), (256, 9)])
    given = ([rng.normal(size=(batch, steps, *cell.signal_shape(n, sizes))) for n in cell.inputs] or [np.ones((batch, steps))],
             rng.integers(1, steps + 1, batch) if r.random() < 0.3 else None)
    weights = [w for p, w in layer.weights.items() if p not in cell.fixed]

    def step(xs, lengths):
        y, after = layer(xs[0] if len(xs) == 1 else tuple(xs), lengths=lengths)
        values = [*(y.values() if isinstance(y, dict) else [y]), *after]
        loss = sum((v * v).sum() for v in values)
        return [*values, loss, *tr.grad(loss, weights)]

    within_budgets(layer, step, given, cell.text)


def stock(r, seed):
    """A stock layer, and what it is."""
    kind, options = r.choice(["RNN", "LSTM", "GRU"]), {
        "num_layers": r.randint(1, 3), "bidirectional": r.random() < 0.6, "bias": r.random() < 0.8,
        "dtype": r.choice(["float32", "float64"])}
    if kind == "GRU":
        options |= {"reset": r.choice(["before", "after"]), "update": r.choice(["old", "new"])}
    if kind == "LSTM":
        options |= {"proj_size": r.choice([0, 4]), "peephole": r.random() < 0.3, "layer_norm": r.random() < 0.3}
    return getattr(tr.nn, kind)(3, r.choice([5, 16]), rng=seed, **options), f"{kind} {options}"


def within_budgets(layer, step, given, what):
    """The bits of a step, without a budget and with smaller and smaller ones, until one is refused."""
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        warnings.simplefilter("error", FallbackWarning)
        try:
            program = tr.compile(step)
            want = program(*given)
        except (TinyRNNError, FallbackWarning):
            return
        for share in (0.8, 0.5, 0.3, 0.15):
            layer.memory = int(share * program.cost.memory) or 1
            got, error = tried(lambda: tr.compile(step)(*given))
            if isinstance(error, ArgumentError) and "too little" in str(error):
                return
            assert error is None, repr(error)
            for i, (y, z) in enumerate(zip(got, want, strict=True)):
                np.testing.assert_array_equal(y, z, err_msg=f"result {i} of {what!r} within {share}")


# ---- files

@functools.cache
def model_files():
    """Small models of every kind of layer, as files."""
    nn = tr.nn
    shared = nn.Linear(3, 3, rng=0)
    models = [nn.Sequential(nn.Embedding(5, 3, padding_idx=0, rng=0), nn.Recurrent(tr.cells.GRU, x=3, h=2, rng=0), nn.Last(),
                            nn.Linear(2, 2, rng=0)),
              nn.Sequential(nn.LSTM(2, 3, num_layers=2, bidirectional=True, rng=0), nn.Dropout(0.1), nn.LayerNorm(6)),
              nn.Sequential(shared, nn.Linear(3, 3, rng=1), shared, nn.Repeat(2)),
              nn.Bidirectional(nn.GRU(2, 3, rng=0)), nn.EncoderDecoder(5, 4, 3, attention="bahdanau", rng=0)]
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for m in models:
            m.save(Path(folder) / "m.safetensors")
            found.append((Path(folder) / "m.safetensors").read_bytes())
    return found


HOSTILE = [None, True, -1, 0, 1, 2, 1.5, 1e308, 10**9, 10**40, "", "x", "\x1b[2J", ",at32", "float16", "O", "h[t] = x[t]", [], {},
           [[]], ["a", "b"], {"kind": "Linear"}, {"kind": []}, "é" * 50, [1] * 50]


def places(tree, path=()):
    """Every place in a tree of JSON."""
    yield path
    for k, v in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        yield from places(v, (*path, k))


def replaced(tree, path, value):
    if not path:
        return value
    copy = dict(tree) if isinstance(tree, dict) else list(tree)
    copy[path[0]] = replaced(tree[path[0]], path[1:], value)
    return copy


def split(raw):
    n = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8 : 8 + n]), raw[8 + n :]


def joined(head, body):
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + body


def mutant(raw, r, described):
    """A file with something else in it; `described` are the metadata that hold JSON."""
    kind = r.random()
    if kind < 0.15:
        data = bytearray(raw)
        for _ in range(r.randrange(1, 4)):
            data[r.randrange(len(data))] = r.randrange(256)
        return bytes(data[: r.randrange(len(data) + 1)] if r.random() < 0.3 else data)
    head, body = split(raw)
    if kind < 0.75:
        key = r.choice(described)
        form = json.loads(head["__metadata__"][key])
        for _ in range(r.choice([1, 1, 1, 2, 4])):
            form = replaced(form, r.choice(list(places(form))), r.choice(HOSTILE))
        head["__metadata__"][key] = json.dumps(form)
    else:
        name = r.choice([k for k in head if k != "__metadata__"])
        entry = head[name]
        if r.random() < 0.3:
            head[r.choice(["x", "layers.0.weight", "a" * 2000, "\x1b[31m"])] = head.pop(name)
        elif r.random() < 0.5:
            entry["dtype"] = r.choice(["I32", "F64", "F16", "U8", "BOOL", "BF16", "", 3, [], {}, None])
        else:
            entry["shape"] = r.choice([entry["shape"][::-1], [10**9], [-1, 2], [0], [], [1.5], None, [*entry["shape"], 1]])
    return joined(head, body)


def sealed(raw, texts):
    """The sum made anew, as an attacker would."""
    try:
        with tempfile.NamedTemporaryFile(suffix=".safetensors") as file:
            file.write(raw)
            file.flush()
            arrays, metadata = read_weights(file.name)
        head, body = split(raw)
        head["__metadata__"]["sum"] = checksum(arrays, *(metadata.get(k, "") for k in texts))
        return joined(head, body)
    except (LoadError, KeyError, TypeError, AttributeError):
        return raw


@contextlib.contextmanager
def little_memory():
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MOST, f"{peak >> 20} MiB were taken"


def models(seed):
    """A damaged or forged model file is a LoadError, and costs next to nothing; its message can be printed."""
    r = random.Random(seed)
    raw = mutant(r.choice(model_files()), r, ("model", "model", "model", "shared"))
    raw = sealed(raw, ("model", "shared")) if r.random() < 0.7 else raw
    loaded = []
    with tempfile.TemporaryDirectory() as folder, little_memory():
        path = Path(folder) / "m.safetensors"
        path.write_bytes(raw)
        if refused(lambda: loaded.append(tr.load(path))):
            return
    assert isinstance(loaded[0], Module)
    assert repr(loaded[0].summary()).replace("\n", "").isprintable()


def _model():
    return tr.nn.Sequential(tr.nn.GRU(2, 2, rng=0), tr.nn.Linear(2, 1, rng=0))


def _fit(model, folder, streams):
    """A run of two epochs; one that streams is in the middle of rows when it is saved."""
    x = np.linspace(0, 1, 24).reshape(2, 6, 2)
    optimizer = tr.optim.Adam(1e-2, schedule=tr.optim.Plateau(monitor="loss"))
    return model.fit(x, x[:, :, :1], loss="mse", optimizer=optimizer, epochs=2, batch_size=2, resume=folder, rng=0, save_every=1,
                     backend="numpy", progress=False, callbacks=[tr.train.EarlyStopping("loss")],
                     **({"tbptt": 2} if streams else {"accumulate": 2}))


@functools.cache
def checkpoint_file(streams):
    """What a run that is killed at its fifth save leaves."""
    saves, plain = [], training.write_checkpoint

    def killed(*arguments):
        plain(*arguments)
        saves.append(1)
        if len(saves) == (5 if streams else 2):
            raise KeyboardInterrupt

    training.write_checkpoint = killed
    try:
        with tempfile.TemporaryDirectory() as folder:
            with contextlib.suppress(KeyboardInterrupt):
                _fit(_model(), folder, streams)
            return (Path(folder) / NAME).read_bytes()
    finally:
        training.write_checkpoint = plain


def checkpoints(seed):
    """A damaged or forged checkpoint is a LoadError, which changes no weight; nothing else is raised."""
    r = random.Random(seed)
    streams = bool(r.random() < 0.6)
    raw = mutant(checkpoint_file(streams), r, ("run",))
    raw = sealed(raw, ("run",)) if r.random() < 0.8 else raw
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / NAME).write_bytes(raw)
        model = _model()
        before = model.state_dict()
        if refused(lambda: _fit(model, folder, streams)):
            assert all((model.state_dict()[k] == a).all() for k, a in before.items()), "weights were changed"


# ---- the cache of kernels

def caches(seed):
    """Whatever stands in the cache, programs run and are right."""
    r = random.Random(seed)
    cell = tr.Cell(f"h[t] = tanh(W @ h[t-1] + {1 + seed % 3} * V @ x[t])")
    graph = cell.rolled(3, x=2, h=3, batch=2, gradients=True)
    values = values_for(graph)
    before = {k: os.environ.get(k) for k in (cache.VARIABLE,)}
    plain = runtime.library
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o700)
        os.environ[cache.VARIABLE] = folder
        try:
            for _ in range(3):
                own = engine.KernelCache(engine.host())
                runtime.library = lambda target, own=own: own  # as a new process
                found, _ = run_compiled(graph, values)
                assert_equal_computations(graph, found, values)
                spoil(sorted(Path(folder).iterdir()), r)
        finally:
            runtime.library = plain
            for k, v in before.items():
                os.environ.pop(k, None) if v is None else os.environ.__setitem__(k, v)


def spoil(files, r):
    """Files change places, are cut, flipped, emptied, replaced by folders or links, or cannot be read."""
    data = {f: f.read_bytes() for f in files if f.is_file()}
    if not data:
        return
    f, other = r.choice(list(data)), r.choice(list(data))
    kind = r.randrange(8)
    if kind == 0:
        f.write_bytes(data[other])
        other.write_bytes(data[f])
    elif kind == 1:
        f.write_bytes(data[f][: r.randrange(len(data[f]))])
    elif kind == 2:
        flipped = bytearray(data[f])
        flipped[r.randrange(len(flipped))] ^= 1 << r.randrange(8)
        f.write_bytes(bytes(flipped))
    elif kind == 3:
        f.write_bytes(b"")
    elif kind == 4:
        f.unlink()
        f.mkdir()
    elif kind == 5:
        f.unlink()
        os.mkfifo(f)
    elif kind == 6:
        f.unlink()
        f.symlink_to("/dev/zero" if r.random() < 0.5 else "nowhere")
    else:
        f.chmod(0o622)


KINDS = {f.__name__: f for f in (programs, scans, lengths, cells, budgets, models, checkpoints, caches)}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("kinds", nargs="*", metavar="KIND", help=", ".join(KINDS))
    p.add_argument("--seconds", type=float, default=60.0, help="for each kind (default: 60)")
    p.add_argument("--seed", type=int, default=0, help="the first seed (default: 0)")
    args = p.parse_args()
    unknown = [k for k in args.kinds if k not in KINDS]
    if unknown:
        p.error(f"there is no kind {unknown[0]!r}; the kinds are {', '.join(KINDS)}")
    wrong = 0
    for name in args.kinds or KINDS:
        began, seed = time.monotonic(), args.seed
        while time.monotonic() - began < args.seconds:
            try:
                KINDS[name](seed)
            except Exception:
                wrong += 1
                print(f"{name} {seed}\n{traceback.format_exc(limit=-8)}", flush=True)
            seed += 1
        print(f"{name}: seeds {args.seed} to {seed - 1}, {wrong} wrong so far", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
