"""Recurrent layers from Flax, of both of its interfaces, and from haste."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from .. import nn
from ..errors import ArgumentError, ConversionWarning, LoadError, users_line
from ..nn.module import Module
from ..nn.packed import Packed
from .carry import compared, imported
from .frameworks import ACTIVATIONS, Foreign, foreign

Arrays = dict[str, Any]
CELLS = {"LSTMCell": ("flax_linen_lstm_cell", "flax_nnx_lstm_cell"), "GRUCell": ("flax_linen_gru_cell", "flax_nnx_gru_cell"),
         "OptimizedLSTMCell": ("flax_linen_lstm_cell", "flax_nnx_optimized_lstm_cell"),
         "SimpleCell": ("flax_linen_simple_cell", "flax_nnx_simple_cell"), "MGUCell": ("flax_linen_mgu_cell",)}
Stock = type[nn.LSTM] | type[nn.GRU] | type[nn.RNN]
STOCK: dict[str, Stock] = {"LSTMCell": nn.LSTM, "OptimizedLSTMCell": nn.LSTM, "GRUCell": nn.GRU, "SimpleCell": nn.RNN}
HASTE: dict[str, tuple[str, Stock | None]] = {
    "lstm": ("haste_lstm", nn.LSTM), "gru": ("haste_gru", nn.GRU), "indrnn": ("haste_indrnn", None)}


def from_flax(source: Any, kind: str | None = None, *, gate_fn: str = "sigmoid", activation_fn: str = "tanh") -> Module:
    """A recurrent layer from Flax: from a module of nnx (a cell, an RNN, or a Bidirectional of them), or from weights.

    Weights are a dict of arrays, as linen's `variables["params"]` or nnx' `nnx.to_pure_dict(nnx.state(cell))`; `kind` is the
    class of their cell: `"LSTMCell"`, `"OptimizedLSTMCell"`, `"GRUCell"`, `"SimpleCell"` or `"MGUCell"` (linen).  A cell that
    is proved to be one of ours becomes an LSTM, a GRU or an RNN, any other a `Recurrent` of Flax' own equations.

    Of the same shapes and dtypes, [B, T, X] to [B, T, H]. Raises `ArgumentError` for what has no counterpart and `LoadError`
    for weights that do not fit; warns (`ConversionWarning`) where a cell is not what its name says, as nnx' GRUCell.

    >>> import numpy as np
    >>> import tinyrnn as tr
    >>> params = {"i": {"kernel": np.ones((2, 3)), "bias": np.zeros(3)}, "h": {"kernel": np.ones((3, 3))}}
    >>> layer = tr.io.from_flax({"cell": params}, kind="SimpleCell")
    >>> type(layer).__name__, layer.input_size, layer.hidden_size
    ('RNN', 2, 3)
    """
    if kind is None:
        return _of_module(source)
    if kind not in CELLS:
        raise ArgumentError(f"kind={kind!r}: expected one of {', '.join(CELLS)}")
    for function in (gate_fn, activation_fn):
        if function not in ACTIVATIONS:
            raise ArgumentError(f"{function!r} cannot be written in equations; known are {', '.join(ACTIVATIONS)}")
    arrays = dict(_flat(source))
    for wrapper in ("params.", "cell."):
        if arrays and all(name.startswith(wrapper) for name in arrays):
            arrays = {name.removeprefix(wrapper): a for name, a in arrays.items()}
    known = [foreign(file, activation_fn, gate_fn) for file in CELLS[kind]]
    theirs = next((f for f in known if set(f.layout.arrays) == set(arrays)), known[0])
    return _imported(kind, theirs, arrays).eval()


def from_haste(arrays: Mapping[str, Any], kind: str) -> Module:
    """A layer from haste's arrays, by their names there: kernel, recurrent_kernel, bias, for a GRU recurrent_bias, for an
    IndRNN recurrent_scale.  `kind` is `"lstm"`, `"gru"` or `"indrnn"`.

    kernel [X, 4H], recurrent_kernel [H, 4H], bias [4H]. Raises `ArgumentError` for another kind, `LoadError` for arrays that do
    not fit.

    >>> import numpy as np
    >>> import tinyrnn as tr
    >>> state = {"kernel": np.ones((2, 3)), "recurrent_scale": np.ones(3), "bias": np.zeros(3)}
    >>> tr.io.from_haste(state, "indrnn").cell.text.splitlines()[-1]
    'h[t] = tanh(W.T @ x[t] + u * h[t-1] + b)'
    """
    if kind not in HASTE:
        raise ArgumentError(f"kind={kind!r}: expected one of {', '.join(HASTE)}")
    file, stock = HASTE[kind]
    return _layer(stock, foreign(file), dict(_flat(arrays))).eval()


def _flat(tree: object, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every array of nested dicts by its dotted name."""
    if not isinstance(tree, Mapping):
        raise LoadError(f"the weights are dicts of arrays, got {type(tree).__name__}")
    stack: list[tuple[str, Any]] = [(prefix, tree)]
    while stack:
        path, part = stack.pop()
        if isinstance(part, Mapping):
            stack += [(f"{path}.{k}" if path else str(k), v) for k, v in part.items()]
        else:
            yield path, _numbers(part)


def _numbers(value: Any) -> Any:
    """The numbers of an array, or of a variable of nnx, of PyTorch, ..."""
    if hasattr(value, "detach"):
        value = value.detach().cpu()
    return np.asarray(value[...] if hasattr(value, "shape") and not isinstance(value, np.ndarray) else value)


def _layer(stock: Stock | None, theirs: Foreign, arrays: Mapping[str, Any], reverse: bool = False) -> Packed | nn.Recurrent:
    dtype = next((np.asarray(a).dtype for a in arrays.values()), np.dtype("float32"))
    make: Callable[[int, int], Packed | None] = lambda x, h: None if stock is None else stock(
        x, h, dtype=dtype, reverse=reverse)
    return imported(make, theirs, arrays, reverse=reverse)


def _imported(kind: str, theirs: Foreign, arrays: Arrays, reverse: bool = False) -> Packed | nn.Recurrent:
    stock = STOCK.get(kind)
    layer = _layer(stock, theirs, arrays, reverse)
    plain = "sigmoid(" in theirs.cell.text or kind == "SimpleCell"
    if stock is not None and plain and "tanh(" in theirs.cell.text and not isinstance(layer, stock):
        found = compared(stock(1, 1).cell, theirs.cell)
        warnings.warn(f"{theirs.cell.title} is not the {stock.__name__} that its name says: in {found.where} it lacks "
                      f"{found.residual}. It is imported as the cell that it is", ConversionWarning, stacklevel=users_line())
    return layer


# ---- modules of nnx

def _of_module(source: Any) -> Module:
    found: Module = _converted(source, False)
    return found.eval()


def _converted(module: Any, reverse: bool) -> Any:
    kind = type(module).__name__
    if not type(module).__module__.startswith("flax.nnx."):
        raise ArgumentError(f"from_flax takes a module of flax.nnx, or weights and kind=, the class of their cell; got {kind}")
    if kind in CELLS:
        return _cell(kind, module, reverse)
    if kind == "RNN":
        if module.time_major or (module.reverse and not module.keep_order):
            raise ArgumentError("flax.nnx.RNN with time_major, or with reverse and without keep_order, has no counterpart: "
                                "ours is [B, T, ...] and keeps the order")
        return _converted(module.cell, bool(module.reverse) or reverse)
    if kind == "Bidirectional":
        return _both(module)
    raise ArgumentError(f"flax.nnx.{kind} has no counterpart; known are {', '.join(CELLS)}, RNN and Bidirectional")


def _cell(kind: str, module: Any, reverse: bool) -> Any:
    if getattr(module, "residual", False) or module.carry_init is not None:
        raise ArgumentError(f"flax.nnx.{kind} with residual or carry_init has no counterpart")
    functions = [getattr(getattr(module, name, None), "__name__", default)
                 for name, default in (("activation_fn", "tanh"), ("gate_fn", "sigmoid"))]
    for name in functions:
        if name not in ACTIVATIONS:
            raise ArgumentError(f"flax.nnx.{kind} with the function {name!r}, which cannot be written in equations; known are "
                                f"{', '.join(ACTIVATIONS)}")
    theirs = foreign(CELLS[kind][-1], *functions)
    arrays = {}
    for name in theirs.layout.arrays:
        layer, weight = name.split(".")
        arrays[name] = _numbers(getattr(getattr(module, layer), weight))
    return _imported(kind, theirs, arrays, reverse)


def _both(module: Any) -> nn.Bidirectional:
    ahead, back = _converted(module.forward_rnn, False), _converted(module.backward_rnn, True)
    merge = getattr(module.merge_fn, "__name__", "")
    shapes = [{k: v.shape for k, v in layer.state_dict().items()} for layer in (ahead, back)]
    alike = type(back) is type(ahead) and back.cell == ahead.cell and shapes[0] == shapes[1]
    if merge != "_concatenate" or not alike or module.time_major or ahead.reverse or not back.reverse:
        raise ArgumentError("flax.nnx.Bidirectional with another merge_fn, of two kinds or sizes of cells, around a layer with "
                            "reverse, or with time_major has no counterpart")
    found = nn.Bidirectional(ahead)
    found.backward.load_state_dict(back.state_dict())
    return found
