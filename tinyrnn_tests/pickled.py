"""Functions and classes that another process finds by name."""

import numpy as np

import tinyrnn as tr

W = tr.parameter(np.arange(9.0).reshape(3, 3), name="W")


def plain(x):
    return tr.tanh(x @ W)


@tr.compile(threads=1)
def decorated(x):
    return x @ W + 1.0


class Scaled(tr.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.factor = tr.nn.GRU(3, 4, rng=0), tr.parameter(np.array([2.0]), name="factor")
        self.tied = self.inner.weight_hh_l0

    def __call__(self, x, state=None):
        y, state = self.inner(x, state)
        return y * self.factor, state

    @tr.compile
    def twice(self, x):
        return self(x)[0] * 2.0


def predicted(model, x):
    return model.predict(x)


def called(program, x):
    return program(x)
