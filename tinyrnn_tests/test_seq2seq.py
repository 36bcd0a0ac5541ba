"""Encoder and decoder with attention against a plain loop; teacher forcing; generation; files."""

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.errors import LoadError
from tinyrnn.nn import seq2seq

from . import loops
from .oracles import assert_close

B, S, T, V, U, H = 4, 6, 5, 9, 7, 3
LENGTHS = np.array([6, 2, 4, 1]), np.array([5, 3, 1, 4])
RNG = np.random.default_rng(0)
SOURCE, TARGET = RNG.integers(0, V, (B, S)), RNG.integers(1, U, (B, T))


def model_of(attention, bidirectional=True, rng=1, **options):
    model = tr.nn.EncoderDecoder(V, U, H, embedding_size=5, attention=attention, bidirectional=bidirectional, start=2,
                                 dtype="float64", rng=0, **options)
    generator = np.random.default_rng(rng)
    for t in model.parameters():
        t.assign(generator.normal(scale=0.6, size=t.shape))
    return model


def gru(p, prefix):
    """One step of the zoo's GRU from a dict of weights."""
    w = {k.removeprefix(prefix): v for k, v in p.items() if k.startswith(prefix)}

    def step(x, h):
        r, z = (loops.sigmoid(x @ w[f"W_i{g}"].T + w[f"b_i{g}"] + h @ w[f"W_h{g}"].T + w[f"b_h{g}"]) for g in "rz")
        n = np.tanh(x @ w["W_in"].T + w["b_in"] + r * (h @ w["W_hn"].T + w["b_hn"]))
        return (1 - z) * n + z * h
    return step


def row_by_hand(p, attention, bidirectional, source, target):
    """Logits of one pair of sequences without padding, step by step; returns where it looked as well."""
    x = p["source_embedding.weight"][source]
    prefix = "encoder.0.forward.weights." if bidirectional else "encoder.0.weights."
    h, seen = np.zeros(H), []
    for e in x:
        h = gru(p, prefix)(e, h)
        seen.append(h)
    memory, end = np.array(seen), h
    if bidirectional:
        back, seen = np.zeros(H), []
        for e in x[::-1]:
            back = gru(p, "encoder.0.backward.weights.")(e, back)
            seen.append(back)
        memory, end = np.concatenate([memory, np.array(seen[::-1])], 1), np.concatenate([h, back])
    s = np.tanh(p["bridge.0.0.weight"] @ end + p["bridge.0.0.bias"])
    logits, looked, read = [], [], [2, *target[:-1]]
    for token in read:
        e = p["target_embedding.weight"][token]
        if attention:
            keys = memory @ p["attention.memory.weight"].T
            if attention == "bahdanau":
                scores = np.tanh(keys + p["attention.query.weight"] @ s + p["attention.query.bias"]) @ p["attention.v"]
            else:
                scores = keys @ s
            a = np.exp(scores - scores.real.max())
            a = a / a.sum()
            looked.append(a)
            context = a @ memory
            s = gru(p, "decoder.0.weights.")(np.concatenate([e, context]), s)
            logits.append(p["out.weight"] @ np.concatenate([s, context]) + p["out.bias"])
        else:
            s = gru(p, "decoder.0.weights.")(e, s)
            logits.append(p["out.weight"] @ s + p["out.bias"])
    return np.array(logits), np.array(looked)


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize("attention", ["bahdanau", "dot", None])
def test_against_a_loop_over_single_rows(attention, bidirectional):
    """Padded batches against rows one by one: logits, attention, and a random direction of all gradients."""
    model = model_of(attention, bidirectional)
    logits = model(SOURCE, TARGET, lengths=LENGTHS)
    valid = np.arange(T) < LENGTHS[1][:, None]
    weights = np.random.default_rng(3).normal(size=(B, T, U)) * valid[..., None]

    def by_hand(p):
        return sum((row_by_hand(p, attention, bidirectional, SOURCE[b, :s], TARGET[b, :t])[0] * weights[b, :t]).sum()
                   for b, (s, t) in enumerate(zip(*LENGTHS, strict=True)))

    p = dict(model.state_dict())
    for b, (s, t) in enumerate(zip(*LENGTHS, strict=True)):
        expected, looked = row_by_hand(p, attention, bidirectional, SOURCE[b, :s], TARGET[b, :t])
        assert_close(logits.numpy()[b, :t], expected, 1e-12)
        if attention:
            found = model.attend(SOURCE, TARGET, LENGTHS)[b]
            assert_close(found[:t, :s], looked, 1e-12)
            assert not found[:t, s:].any()
    grads = tr.grad((logits * weights).sum(), dict(model.named_parameters()))
    direction = {k: np.random.default_rng(i).normal(size=v.shape) for i, (k, v) in enumerate(p.items())}
    expected = by_hand({k: v + 1e-100j * direction[k] for k, v in p.items()}).imag / 1e-100
    assert_close(sum((g.numpy() * direction[k]).sum() for k, g in grads.items()), expected, 1e-11)


@pytest.mark.parametrize("cell", ["lstm", "mgu"])
def test_any_cell_and_several_layers_in_training(cell):
    rng = np.random.default_rng(0)
    source = [rng.integers(1, V, n) for n in rng.integers(1, 5, 80)]
    target = [np.append(row[::-1] % U, 0) for row in source]
    model = tr.nn.EncoderDecoder(V, U, 12, cell=cell, num_layers=2, attention="dot", dropout=0.1, rng=0)
    history = model.fit(source, target, optimizer=tr.optim.Adam(0.01, clip_norm=1.0), epochs=8, batch_size=16, rng=0,
                        validation=(source[:20], target[:20]), metrics=("accuracy",), bucket=True)
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    assert model.evaluate(source[:20], target[:20])["loss"] == pytest.approx(history["val_loss"][-1], rel=1e-5)


def test_generation_reads_its_own_tokens():
    """Greedy generation is teacher forcing with what was generated; rows end at `stop`; padding does not matter."""
    model = model_of("bahdanau").eval()
    said = model.generate(SOURCE, 8, lengths=LENGTHS[0])
    assert said.shape == (B, 8)
    for b, n in enumerate(LENGTHS[0]):
        row = said[b].tolist()
        end = row.index(0) if 0 in row else 8
        assert set(row[end:]) <= {0}
        logits = model(SOURCE[b : b + 1, :n], said[b : b + 1]).numpy()[0]
        np.testing.assert_array_equal(logits.argmax(-1)[: end + 1], row[: end + 1])
    np.testing.assert_array_equal(said, model.generate([SOURCE[b, :n] for b, n in enumerate(LENGTHS[0])], 8))
    np.testing.assert_array_equal(said, model.generate(SOURCE, 8, lengths=LENGTHS[0], temperature=3.0, top_k=1, rng=0))
    drawn = model.generate(SOURCE, 8, temperature=5.0, rng=0)
    np.testing.assert_array_equal(drawn, model.generate(SOURCE, 8, temperature=5.0, rng=0))
    assert not np.array_equal(drawn, model.generate(SOURCE, 8, temperature=5.0, rng=1))
    assert model.generate(SOURCE, 0).shape == (B, 0)


@pytest.mark.parametrize("forced", [0.0, 0.5])
def test_scheduled_sampling_reads_what_the_coins_say(monkeypatch, forced):
    """With coins of our own the logits are those of teacher forcing with the mixed tokens."""
    model, rng = model_of("dot", teacher_forcing=forced), np.random.default_rng(0)
    coins = rng.random((T, B)) < forced
    monkeypatch.setattr(seq2seq, "keep_mask", lambda shape, p, own: tr.tensor(coins))
    found = model.train()(SOURCE, TARGET).numpy()
    said = found.argmax(-1)
    read = np.concatenate([np.full((B, 1), 2), np.where(coins.T[:, 1:], TARGET[:, :-1], said[:, :-1])], 1)
    monkeypatch.undo()
    mixed = np.concatenate([read[:, 1:], TARGET[:, -1:]], 1)
    assert_close(found, model.eval()(SOURCE, mixed).numpy(), 1e-12)


def test_files_and_mistakes(tmp_path):
    model = model_of("bahdanau", dropout=0.2, teacher_forcing=0.7)
    model.save(tmp_path / "m.safetensors")
    back = tr.load(tmp_path / "m.safetensors")
    assert back.config() == model.config()
    np.testing.assert_array_equal(back.generate(SOURCE, 5), model.generate(SOURCE, 5))
    delayed = tr.Cell("h[t] = tanh(W @ x[t] + U @ h[t-2])")
    for use, message in ((lambda: model_of("multi"), "attention='multi'"), (lambda: model_of(None).attend(SOURCE, TARGET), "no attention"),
                         (lambda: model_of(None, cell=delayed), "one step back"),
                         (lambda: tr.nn.EncoderDecoder(3, 3, 4, start=3), "tokens from 0 to 2"),
                         (lambda: tr.nn.EncoderDecoder(3, 3, 4, teacher_forcing=2), "shares from 0 to 1"),
                         (lambda: model(SOURCE, TARGET[:2]), "4 rows and the target has 2"),
                         (lambda: model(SOURCE * 1.0, TARGET), "the source holds whole numbers"),
                         (lambda: model(SOURCE, TARGET[0]), r"the target is \[B, T\]"),
                         (lambda: model.generate(SOURCE[0], 3), r"expected tokens \[B, T\]"),
                         (lambda: model.generate(SOURCE, 3, temperature=-1), "temperature >= 0")):
        with pytest.raises(tr.TinyRNNError, match=message):
            use()
    damaged = (tmp_path / "m.safetensors").read_bytes().replace(b"tanh(", b"tanh[", 1)
    (tmp_path / "d.safetensors").write_bytes(damaged)
    with pytest.raises(LoadError):
        tr.load(tmp_path / "d.safetensors")
