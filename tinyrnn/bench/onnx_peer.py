"""Stock layers for onnxruntime: its own operators with the same weights, whole sequences and single steps."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
ORDER = {"LSTM": (0, 3, 1, 2), "GRU": (1, 0, 2), "RNN": (0,)}  # of our gates, as ONNX wants them: iofc, zrh
OPSET, IR = 22, 10


def model(kind: str, layer: Any, states: bool) -> bytes:
    """One operator; with `states` they come in and go out."""
    onnx = import_module("onnx")
    helper, kinds = onnx.helper, onnx.TensorProto
    names = ["h", "c"] if kind == "LSTM" else ["h"]
    given = [f"{s}0" for s in names] if states else []
    inputs = [helper.make_tensor_value_info("x", kinds.FLOAT, ["T", "B", layer.input_size]),
              *(helper.make_tensor_value_info(s, kinds.FLOAT, [1, "B", layer.hidden_size]) for s in given)]
    outputs = ["y", *names]
    options = {"hidden_size": layer.hidden_size, **({"linear_before_reset": 1} if kind == "GRU" else {})}
    node = helper.make_node(kind, ["x", "W", "R", "b", *([""] if given else []), *given], outputs, **options)
    graph = helper.make_graph([node], kind, inputs, [helper.make_tensor_value_info(o, kinds.FLOAT, None)
                                                     for o in (outputs if states else ["y"])],
                              [onnx.numpy_helper.from_array(a[None], k) for k, a in weights(kind, layer).items()])
    made: bytes = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR).SerializeToString()
    return made


def weights(kind: str, layer: Any) -> dict[str, Array]:
    """A layer's weights with the gates in ONNX's order."""
    def sorted_gates(a: Array) -> Array:
        parts = np.split(a, len(ORDER[kind]))
        return np.concatenate([parts[i] for i in ORDER[kind]])

    p = {k: sorted_gates(v) for k, v in layer.state_dict().items()}
    return {"W": p["weight_ih_l0"], "R": p["weight_hh_l0"], "b": np.concatenate([p["bias_ih_l0"], p["bias_hh_l0"]])}


def session(made: bytes, threads: int) -> Any:
    ort = import_module("onnxruntime")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    return ort.InferenceSession(made, options, providers=["CPUExecutionProvider"])


def sequences(kind: str, layer: Any, x: Array, threads: int) -> Callable[[], Array]:
    """A whole sequence in one call; x [B, T, X] is handed over time first, as the operator wants it."""
    run, given = session(model(kind, layer, False), threads), {"x": np.ascontiguousarray(x.swapaxes(0, 1))}

    def infer() -> Array:
        y: Array = run.run(None, given)[0]
        return y[:, 0].swapaxes(0, 1)

    return infer


def steps(kind: str, layer: Any, x: Array, threads: int) -> Callable[[], Array]:
    """A step after the other; the states go back in."""
    run, names = session(model(kind, layer, True), threads), ["h", "c"] if kind == "LSTM" else ["h"]
    given = {"x": np.ascontiguousarray(x[None]),
             **{f"{s}0": np.zeros((1, len(x), layer.hidden_size), np.float32) for s in names}}

    def step() -> Array:
        y, *states = run.run(None, given)
        for s, value in zip(names, states, strict=True):
            given[f"{s}0"] = value
        out: Array = y[0, 0]
        return out

    return step
