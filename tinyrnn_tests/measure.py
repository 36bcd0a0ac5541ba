"""Measured figures of the engine: `python -m tinyrnn_tests.measure [FILE.json]`.

Ratios against PyTorch are taken in one run, the two sides in turn, PyTorch at its better number of threads.
"""

import json
import platform
import statistics
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np

import tinyrnn as tr
from tinyrnn.tensor.compile import Program

from .test_equations import BAD


def seconds(f, repeat=1):
    times = []
    for _ in range(repeat):
        t = time.perf_counter()
        f()
        times.append(time.perf_counter() - t)
    return statistics.median(times)


def import_time():
    """Wall time of `import tinyrnn` in a new process, without Python's own start; NumPy's share apart."""
    code = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
    once = lambda name: float(subprocess.run([sys.executable, "-c", code.format(name)], capture_output=True, text=True,
                                             check=True).stdout)
    return {name: statistics.median(once(name) for _ in range(7)) for name in ("tinyrnn", "numpy")}


def unrolled(steps):
    """LSTM, B=4, x=8, h=16, all gradients: build time, nodes, memory."""
    def build():
        return tr.cells.LSTM.unroll(steps, batch=4, x=8, h=16, gradients=True)

    took = seconds(build, 3)
    tracemalloc.start()
    graph = build()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    values = {k: np.full(n.shape, 0.1) for k, n in graph.inputs.items()}
    first = seconds(lambda: graph.run(values))
    return {"build_s": took, "nodes": len(graph), "peak_mb": peak / 2**20, "first_run_s": first,
            "next_run_s": seconds(lambda: graph.run(values), 3)}


def hostile():
    """The slowest answer to a text of the hostile list."""
    def refuse(text):
        try:
            tr.Cell(text)
        except tr.EquationError:
            return
        raise AssertionError(text[:40])
    times = {name: seconds(lambda text=text: refuse(text)) for name, (text, _) in BAD.items()}
    return max(times.items(), key=lambda item: item[1])


def against_torch(batch=32, steps=32, size=128, pairs=15):
    """A float32 training step (forward, all gradients) of an LSTM layer against torch's Python loop over the cell."""
    try:
        import torch
    except ImportError:
        return None
    layer = tr.nn.LSTM(size, size, rng=0)
    x = np.random.default_rng(0).normal(size=(batch, steps, size)).astype("f4")

    def loss_and_gradients(x):
        y = layer(x)[0]
        loss = (y * y).sum()
        return {"loss": loss, **tr.grad(loss, dict(layer.named_parameters()))}

    program = Program(loss_and_gradients)
    cell = torch.nn.LSTMCell(size, size)
    tx = torch.tensor(x)

    def eager():
        h = c = torch.zeros(batch, size)
        outputs = []
        for t in range(steps):
            z = tx[:, t] @ cell.weight_ih.T + cell.bias_ih + h @ cell.weight_hh.T + cell.bias_hh
            i, f, g, o = z.chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            outputs.append(h)
        y = torch.stack(outputs, 1)
        (y * y).sum().backward()

    ours, theirs = lambda: program(x=x), eager
    best = {}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        eager()
        best[threads] = seconds(eager, 7)
    torch.set_num_threads(min(best, key=best.get))
    ours()
    rows = [(seconds(ours), seconds(theirs)) for _ in range(pairs)]
    ratios = sorted(a / b for a, b in rows)
    quartiles = statistics.quantiles(ratios, n=4)
    return {"tinyrnn_ms": 1e3 * statistics.median(a for a, _ in rows), "torch_ms": 1e3 * statistics.median(b for _, b in rows),
            "torch_threads": torch.get_num_threads(), "ratio_quartiles": quartiles, "pairs": pairs, "torch": torch.__version__,
            "B": batch, "T": steps, "H": size}


def proofs():
    """Proofs at the sizes that were asked for, in seconds (the axioms were compared before)."""
    from tinyrnn.symbolic.checker import check
    from tinyrnn.symbolic.proof.prove import _exactly, _in_field, axioms, cell_problem

    axioms()

    def field(cell, form):
        return seconds(lambda: _in_field(cell_problem(cell, form, 50, 1, {"x": 16, "h": 16}, 0)), 3)

    def exact(cell):
        return seconds(lambda: _exactly(cell_problem(cell, "unrolled", 2, 1, {"x": 2, "h": 2}, 0), 400_000), 3)

    found = {name: {"field_s": {form: field(tr.cells[name], form) for form in ("unrolled", "rolled")},
                    "exact_s": exact(tr.cells[name])} for name in ("lstm", "gru", "gru_reset_before")}
    certificates = [json.loads(tr.prove(tr.cells[n], rng=0).certificate()) for n in tr.cells.names()]
    found["certificates_s"] = seconds(lambda: [check(c) for c in certificates], 3)
    found["zoo_s"] = seconds(lambda: [tr.prove(tr.cells[n]) for n in tr.cells.names()])
    found["pages_s"] = seconds(lambda: [tr.derive(tr.cells[n]).markdown() for n in tr.cells.names()])
    return found


def pictures():
    """Drawings, the page and the analyses of an LSTM, after their first use."""
    lstm, todo = tr.cells.LSTM, {}
    todo["folded_s"] = lambda: tr.draw(lstm).svg
    todo["thirty_steps_s"] = lambda: tr.draw(lstm, steps=30, show="all", gradients=True).svg
    graph = tr.cells.GRU.unroll(100, x=2, h=3)
    todo["graph_s"] = lambda: tr.draw(graph).svg
    todo["gradients_s"] = lambda: tr.draw(lstm, steps=200, show="all", gradients=True).svg
    todo["heat_s"] = lambda: tr.draw(lstm, steps=1000, show="heat").svg
    todo["page_s"] = lambda: tr.page(lstm).html
    for run in todo.values():
        run()
    found = {k: seconds(run, 5) for k, run in todo.items()}
    return {**found, "page_kb": len(tr.page(lstm).html.encode()) / 1e3,
            "analyze_s": {steps: seconds(lambda steps=steps: tr.analyze(lstm, steps=steps), 3) for steps in (2500, 5000)}}


def table(d):
    """The figures as the table of docs/status.md."""
    u, t, loads = d["unrolled_lstm"], d["training_step_against_torch_eager_cell"], d["import_s"]
    rows = [("`import tinyrnn`, new process", f"{loads['tinyrnn']:.2f} s (NumPy alone {loads['numpy']:.2f} s)", "0.3 s")]
    for steps, asked in ((1000, "2 s, 500 MB"), (100, ""), (2000, "linear size")):
        f = u[steps]
        rows.append((f"unrolled LSTM with all gradients, T = {steps:,}: built", f"{f['build_s']:.2f} s, {f['nodes']:,} nodes, "
                     f"{f['peak_mb']:.0f} MB", asked))
    rows.append(("running it at T = 1,000: planned and run, run again",
                 f"{u[1000]['first_run_s']:.2f} s, {u[1000]['next_run_s']:.2f} s", ""))
    v = d["pictures"]
    rows += [("LSTM folded; 30 steps with gradients, all shown; 200 steps",
              f"{v['folded_s']:.3f} s; {v['thirty_steps_s']:.2f} s; {v['gradients_s']:.2f} s", "0.05 s; 0.6 s"),
             ("heat strip of 1,000 steps; graph of 2,420 nodes", f"{v['heat_s']:.2f} s; {v['graph_s']:.1f} s", "1 s; 5 s"),
             ("page of 6 steps", f"{v['page_s']:.2f} s, {v['page_kb']:.0f} kB", "350 kB"),
             ("analysis of an LSTM, T = 2,500, 5,000", ", ".join(f"{s:.1f} s" for s in v["analyze_s"].values()), "10 s")]
    rows.append(("slowest answer to a hostile text", f"{1e3 * d['slowest_hostile_text']['s']:.0f} ms", "1 s"))
    p = d["proofs"]
    for name, what in (("lstm", "LSTM"), ("gru", "GRU, reset after"), ("gru_reset_before", "GRU, reset before")):
        f = p[name]
        rows.append((f"proof of every gradient of {what} in the field, H = 16, T = 50: unrolled, rolled; exact, H = D = T = 2",
                     f"{f['field_s']['unrolled']:.2f} s, {f['field_s']['rolled']:.2f} s; {f['exact_s']:.2f} s", "2 s; 5 s"))
    rows.append(("proofs of the whole zoo; its certificates checked; its derivations",
                 f"{p['zoo_s']:.1f} s; {p['certificates_s']:.2f} s; {p['pages_s']:.1f} s", "60 s"))
    if t:
        low, middle, high = t["ratio_quartiles"]
        rows.append((f"LSTM training step (float32, B = T = {t['T']}, H = {t['H']}) against PyTorch's eager loop over the cell, "
                     f"{t['torch_threads']} thread(s)", f"{t['tinyrnn_ms']:.1f} ms against {t['torch_ms']:.1f} ms: ratio "
                     f"{middle:.2f} (quartiles {low:.2f}, {high:.2f}, {t['pairs']} pairs)", "3"))
    return "\n".join(["| what | measured | asked for |", "| --- | --: | --: |", *(f"| {' | '.join(r)} |" for r in rows)])


def write_table(path, text):
    """Put the table between its marks in a page."""
    head, _, rest = path.read_text().partition("<!-- measured -->\n")
    path.write_text(f"{head}<!-- measured -->\n{text}\n<!-- end -->{rest.partition('<!-- end -->')[2]}")


def main(file=None):
    name, slowest = hostile()
    figures = {"machine": platform.machine(), "python": platform.python_version(), "numpy": np.__version__,
               "import_s": import_time(), "unrolled_lstm": {t: unrolled(t) for t in (100, 1000, 2000)}, "slowest_hostile_text": {"name": name, "s": slowest},
               "pictures": pictures(), "proofs": proofs(), "training_step_against_torch_eager_cell": against_torch()}
    text = json.dumps(figures, indent=1)
    print(text)
    if file:
        with open(file, "w") as out:
            out.write(text + "\n")
        write_table(Path(file).parent.parent / "status.md", table(figures))


if __name__ == "__main__":
    main(*sys.argv[1:])
