"""A cell, a layer or a model as a function for JAX."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ..cells import Cell
from ..errors import ArgumentError, DTypeError
from ..exchange.pure import Arguments, PureModel
from ..nn.module import Module
from ..nn.recurrent import Recurrent
from ..tensor.signatures import Spec
from ..tensor.tensor import Tensor
from ..trees import described, flatten, is_array
from .operations import operation


def layer(cell_or_layer: Cell | Module | str, **options: Any) -> LayerFunction:
    """A cell, a layer or a model as a function of its weights, for `jax.jit`, `jax.grad` and `jax.vmap`.

    `f = tr.jax.layer(cell, x=64, h=128)` runs a cell, given by its equations or its name, over a sequence;
    `tr.jax.layer(layer)` takes any layer or model of `tr.nn`.  `f.params` are its weights at the start, a dict of arrays, and

        y, state = f(params, x, state=None, lengths=None, mask=None)          x [B, T, X], y [B, T, H]

    Forward and backward runs are tinyrnn's compiled programs, called by JAX from its own (`jax.pure_callback`), on the host's
    memory; gradients are exact, backwards and of any order.  With `key=` (of `jax.random`) it is in training mode: dropout is
    drawn from the key.  Under `vmap` rows are computed one by one: give a batch as [B, T, X] instead, where you can.

    Raises `ArgumentError` for what is neither cell nor layer and for weights of other names, `DTypeError` for weights of other
    dtypes, `MissingPackageError` without JAX, and what the layer raises for its arguments.

    >>> import jax, tinyrnn as tr
    >>> f = tr.jax.layer("mgu", x=3, h=4, rng=0)
    >>> loss = lambda params, x: f(params, x)[0].sum()
    >>> jax.jit(jax.grad(loss))(f.params, jax.numpy.ones((2, 5, 3)))["b_f"].shape
    (4,)
    """
    found = cell_or_layer if isinstance(cell_or_layer, Module) else Recurrent(cell_or_layer, **options)
    if found is cell_or_layer and options:
        raise ArgumentError(f"{', '.join(options)}: a {type(found).__name__} has its sizes and options already")
    return LayerFunction(found)


class LayerFunction:
    """What `tr.jax.layer` gives: a layer or a model as a function of its weights and its arguments."""

    def __init__(self, model: Module) -> None:
        self._names = list(model.state_dict())
        self.params = {k: jnp.asarray(v) for k, v in model.state_dict().items()}
        self._start = copy.deepcopy(model)
        self._models: dict[tuple[Any, bool], PureModel] = {}

    def __call__(self, params: Mapping[str, Any], *args: Any, key: Any = None, **keywords: Any) -> Any:
        weights = self._weights(params)
        if isinstance(keywords.get("lengths"), int):
            keywords["lengths"] = np.asarray(keywords["lengths"])
        given, form = flatten((args, keywords))
        arguments = Arguments([_prepared(a) for a in given], form, described((args, keywords)), _spec, jax.Array)
        arrays = arguments.arrays
        function = self._model(weights, key is not None).function(weights, arguments, "cpu")
        drawn = [_key(key)] if function.draws else []
        found = operation(function.differentiable)(*weights, *drawn, *arrays)
        return function.result(list(found))

    def __getstate__(self) -> dict[str, Any]:
        """Programs are traced anew where a copy or a pickle arrives."""
        return {**self.__dict__, "_models": {}}

    def __repr__(self) -> str:
        return f"<{type(self._start).__name__} as a function of {', '.join(self._names)}>"

    def to_tinyrnn(self, params: Mapping[str, Any]) -> Module:
        """The layer or model of tinyrnn with these weights."""
        weights = self._weights(params)
        model = copy.deepcopy(self._model(weights, False).model)
        for (_, t), w in zip(model.leaves(), weights, strict=True):
            t.assign(np.asarray(w))
        return model

    def _weights(self, params: Mapping[str, Any]) -> list[Any]:
        if not isinstance(params, Mapping) or set(params) != set(self._names):
            got = ", ".join(map(str, params)) if isinstance(params, Mapping) else type(params).__name__
            raise ArgumentError(f"the weights are a dict of {', '.join(self._names)}, like `params`; got {got}")
        return [jnp.asarray(params[name]) for name in self._names]

    def _model(self, weights: list[Any], training: bool) -> PureModel:
        """The model in the dtype that the weights have."""
        found = sorted({str(w.dtype) for w in weights if jnp.issubdtype(w.dtype, jnp.floating)})
        if len(found) > 1 or (found and found[0] not in ("float32", "float64")):
            raise DTypeError(f"the weights are {' and '.join(found)}; expected float32 or float64 for all of them")
        if (tuple(found), training) not in self._models:
            model = self._start.astype(found[0]) if found else copy.deepcopy(self._start)
            self._models[tuple(found), training] = PureModel(model.train(training))
        return self._models[tuple(found), training]


def _prepared(value: Any) -> Any:
    """An argument as an array of JAX, if it is an array."""
    listed = isinstance(value, list) and is_array(value)
    value = value.numpy() if isinstance(value, Tensor) else value
    if isinstance(value, jax.Array) and value.dtype in (jnp.bfloat16, jnp.float16):
        return value.astype("float32")
    return jnp.asarray(value) if listed or isinstance(value, (np.ndarray, np.generic)) else value


def _spec(array: Any) -> Spec:
    return Spec(tuple(array.shape), np.dtype(array.dtype))


def _key(key: Any) -> Any:
    """Two numbers of 32 bits of a key of `jax.random`."""
    if not isinstance(key, (jax.Array, np.ndarray)):
        raise ArgumentError(f"key={key!r}: expected a key of jax.random, such as jax.random.key(0)")
    data = jax.random.key_data(key) if jnp.issubdtype(key.dtype, jax.dtypes.prng_key) else key
    return data.reshape(-1)[:2].astype(np.uint32)
