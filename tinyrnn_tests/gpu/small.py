"""Small runs of everything that has kernels of its own, for a checker that makes them a hundred times slower."""

from importlib import import_module

import numpy as np

import tinyrnn as tr


def main():
    cuda = import_module("cupy").cuda
    if hasattr(cuda, "set_allocator"):
        cuda.set_allocator(None)  # every array by itself, so that what is written beside it is noticed
    rng = np.random.default_rng(0)
    for backend in ("cuda:eager", "cuda"):
        model = tr.nn.Sequential(tr.nn.Embedding(7, 4, rng=0), tr.nn.LSTM(4, 5, rng=1), tr.nn.LayerNorm(5), tr.nn.Dropout(0.2),
                                 tr.nn.Last(), tr.nn.Linear(5, 3, rng=2))
        model.fit(rng.integers(0, 7, (6, 4)), rng.integers(0, 3, 6), loss="cross_entropy", optimizer=tr.optim.Adam(1e-2), epochs=2,
                  batch_size=3, lengths=rng.integers(1, 5, 6), backend=backend, rng=0, progress=False)
        sums = tr.compile(lambda x, y: (x.sum(), abs(x).max(), y.sum(0), tr.softmax(y)), backend=backend)
        for _ in range(2):
            sums(rng.normal(size=(1, 20_000)).astype("f"), rng.normal(size=(700, 40)))
    print("all small runs are done")


if __name__ == "__main__":
    main()
