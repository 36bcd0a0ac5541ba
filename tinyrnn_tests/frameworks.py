"""Files that PyTorch, Keras and Flax write, with what their models answer: `python -m tinyrnn_tests.frameworks` writes them anew.

They are small, and lie in `tinyrnn_tests/files/frameworks`, so that the readers are tried on machines without these
frameworks.  Weights are random, and no two are alike.
"""

import os
import warnings
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "files" / "frameworks"
ANSWERS = FOLDER / "answers.npz"


def uneven(arrays, rng):
    return [0.5 * rng.normal(size=np.shape(a)) for a in arrays]


def keras_models(keras):
    """Models by name, each with an input."""
    layers, rng = keras.layers, np.random.default_rng(0)
    tagger = keras.Sequential([
        keras.Input((None,)), layers.Embedding(10, 3), layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
        layers.Dropout(0.3), layers.Dense(3, activation="softmax")])
    forecaster = keras.Sequential([
        keras.Input((None, 2)), layers.GRU(4, return_sequences=True), layers.GRU(3, reset_after=False, use_bias=False, return_sequences=True),
        layers.LayerNormalization(), layers.SimpleRNN(4, activation="relu", go_backwards=True), layers.Dense(1)])
    x = keras.Input((None, 2))
    y = layers.LSTM(3, activation="softsign", recurrent_activation="hard_sigmoid", return_sequences=True)(x)
    y = layers.Bidirectional(layers.GRU(2), merge_mode="ave")(y)
    unusual = keras.Model(x, layers.Dense(2, use_bias=False)(y))
    return {"tagger": (tagger, rng.integers(0, 10, (3, 6))), "forecaster": (forecaster, rng.normal(size=(3, 6, 2))),
            "unusual": (unusual, rng.normal(size=(3, 6, 2)))}


def double_precision_keras():
    """Keras on PyTorch, computing in double precision: outside of TensorFlow its products of float64 are float32, by a table."""
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    from keras.src.backend.common import dtypes

    dtypes.BIT64_TO_BIT32_DTYPE["float64"] = "float64"
    keras.config.set_floatx("float64")
    return keras


def write_keras(answers):
    keras = double_precision_keras()
    keras.utils.set_random_seed(0)
    for name, (model, x) in keras_models(keras).items():
        model.set_weights(uneven(model.get_weights(), np.random.default_rng(len(name))))
        model.save(FOLDER / f"keras_{name}.keras")
        answers[f"keras_{name}.x"], answers[f"keras_{name}.y"] = x, keras.ops.convert_to_numpy(model(x))
    model.save_weights(FOLDER / "keras_unusual.weights.h5")


def write_torch(answers):
    import torch
    from safetensors.torch import save_file

    lstm, rng = torch.nn.LSTM(3, 5, num_layers=2, bidirectional=True, proj_size=2, batch_first=True, dtype=torch.float64), np.random.default_rng(1)
    state = {k: torch.from_numpy(v) for k, v in zip(lstm.state_dict(), uneven(lstm.state_dict().values(), rng), strict=True)}
    lstm.load_state_dict(state)
    save_file(state, FOLDER / "torch_lstm.safetensors")
    x = rng.normal(size=(2, 6, 3))
    answers["torch_lstm.x"], answers["torch_lstm.y"] = x, lstm(torch.from_numpy(x))[0].detach().numpy()


def write_flax(answers):
    import jax
    from flax import linen, nnx

    jax.config.update("jax_enable_x64", True)
    x, rng = np.random.default_rng(3).normal(size=(2, 6, 3)), np.random.default_rng(4)
    weights = {}
    for kind in ("LSTMCell", "OptimizedLSTMCell", "GRUCell", "SimpleCell", "MGUCell"):
        layer = linen.RNN(getattr(linen, kind)(4, param_dtype="float64"))
        params = jax.tree.map(lambda a: 0.5 * rng.normal(size=a.shape), layer.init(jax.random.key(0), x))
        weights |= {f"linen {kind} {'.'.join(k.key for k in path)}": a for path, a in jax.tree_util.tree_leaves_with_path(params)}
        answers[f"linen {kind}.x"], answers[f"linen {kind}.y"] = x, np.asarray(layer.apply(params, x))
    for kind in ("LSTMCell", "OptimizedLSTMCell", "GRUCell", "SimpleCell"):
        cell = getattr(nnx, kind)(3, 4, rngs=nnx.Rngs(0), param_dtype="float64", dtype="float64")
        nnx.update(cell, jax.tree.map(lambda a: 0.5 * rng.normal(size=a.shape), nnx.state(cell, nnx.Param)))
        state = nnx.to_pure_dict(nnx.state(cell, nnx.Param))
        weights |= {f"nnx {kind} {layer}.{name}": np.asarray(a) for layer, named in state.items() for name, a in named.items()}
        answers[f"nnx {kind}.x"], answers[f"nnx {kind}.y"] = x, np.asarray(nnx.RNN(cell)(x))
    np.savez_compressed(FOLDER / "flax.npz", **weights)


def main():
    FOLDER.mkdir(parents=True, exist_ok=True)
    answers = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for write in (write_keras, write_torch, write_flax):
            write(answers)
    np.savez_compressed(ANSWERS, **answers)
    for file in sorted(FOLDER.iterdir()):
        print(f"{file.name}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
