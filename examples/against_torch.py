"""The same examples with PyTorch doing the training: same network, same start, same number of steps.

`python examples/against_torch.py speakers` runs the example as it is, but each model is trained by PyTorch and its weights are
then given back to tinyrnn for scoring.  Writes `speakers.torch.json`.  Dropout and the order of rows are PyTorch's own.
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import DOCS, Run, plain_figures
from digits_as_words import Captioner
from sunspots import Forecast
from torch import nn

import tinyrnn as tr
from tinyrnn.train.data import Batches, Data
from tinyrnn.train.history import History


def tensor(array: Any) -> torch.Tensor:
    a = np.asarray(array)
    return torch.tensor(a.astype(np.int64) if a.dtype.kind in "iu" else a.astype(np.float32))


class Packed(nn.Module):
    """nn.RNN, nn.LSTM or nn.GRU with our weights; padding by PyTorch's packed sequences."""

    def __init__(self, layer: Any) -> None:
        super().__init__()
        kind = {tr.nn.RNN: nn.RNN, tr.nn.LSTM: nn.LSTM, tr.nn.GRU: nn.GRU}[type(layer)]
        self.net = kind(layer.input_size, layer.hidden_size, batch_first=True, bidirectional=layer.bidirectional)
        self.net.load_state_dict({k: tensor(v) for k, v in layer.state_dict().items()})

    def forward(self, x, lengths=None, state=None):
        if lengths is None:
            return self.net(x, state)
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, state = self.net(packed, state)
        return nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=x.shape[1])[0], state


class Chain(nn.Module):
    """A Sequential of ours."""

    def __init__(self, model: tr.nn.Sequential) -> None:
        super().__init__()
        self.parts = nn.ModuleList([twin(layer) for layer in model.layers])

    def forward(self, x, lengths=None, state=None):
        after = None
        for part in self.parts:
            if isinstance(part, Packed):
                x, after = part(x, lengths, state)
            else:
                x = part(x, lengths) if isinstance(part, Pooled) else part(x)
        return x, after


class Pooled(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def forward(self, y, lengths):
        n = torch.full((len(y),), y.shape[1]) if lengths is None else lengths
        valid = (torch.arange(y.shape[1]) < n[:, None])[..., None]
        if self.kind == "last":
            return y[torch.arange(len(y)), n - 1]
        if self.kind == "max":
            return y.masked_fill(~valid, -torch.inf).amax(1)
        return (y * valid).sum(1) / n[:, None]


class Caption(nn.Module):
    def __init__(self, model: Captioner) -> None:
        super().__init__()
        self.look, self.begin, self.letters, self.spell, self.out = (
            twin(m) for m in (model.look, model.begin, model.letters, model.spell, model.out))

    def forward(self, pictures, read):
        h = torch.tanh(self.begin(torch.relu(self.look(pictures))))
        return self.out(self.spell(self.letters(read), state=h[None])[0]), None


class Year(nn.Module):
    def __init__(self, model: Forecast) -> None:
        super().__init__()
        self.memory, self.out, self.linear = twin(model.memory), twin(model.out), twin(model.linear)

    def forward(self, x, lengths=None):
        return self.out(self.memory(x)[0][:, -1]) + self.linear(x[:, -9:, 0]), None


class Translator(nn.Module):
    """One layer of GRUs in both directions, Luong's attention, teacher forcing."""

    def __init__(self, model: tr.nn.EncoderDecoder) -> None:
        super().__init__()
        self.source, self.target = twin(model.source_embedding), twin(model.target_embedding)
        hidden = model.sizes["hidden_size"]
        self.read = nn.GRU(model.sizes["embedding_size"], hidden, batch_first=True, bidirectional=True)
        self.say = nn.GRUCell(model.sizes["embedding_size"] + 2 * hidden, hidden)
        for own, net, suffix in ((model.encoder[0].forward, self.read, "_l0"),
                                 (model.encoder[0].backward, self.read, "_l0_reverse"), (model.decoder[0], self.say, "")):
            self._give(own.state_dict(), net, suffix)
        self.keys, self.bridge, self.out = twin(model.attention.memory), twin(model.bridge[0][0]), twin(model.out)
        self.dropout, self.start = model.dropout, model.start

    @staticmethod
    def _give(weights, net, suffix) -> None:
        with torch.no_grad():
            for side in "ih":
                for kind, name in (("W", "weight"), ("b", "bias")):
                    packed = np.concatenate([weights[f"{kind}_{side}{g}"] for g in "rzn"])
                    getattr(net, f"{name}_{side}h{suffix}").copy_(tensor(packed))

    def _dropped(self, e):
        if not self.training:
            return e
        keep = 1 - self.dropout
        return e * torch.bernoulli(torch.full((e.shape[0], 1, e.shape[2]), keep)) / keep

    def forward(self, source, target, lengths):
        ns = lengths[0]
        seen = self._dropped(self.source(source))
        y, h = self.read(nn.utils.rnn.pack_padded_sequence(seen, ns, batch_first=True, enforce_sorted=False))
        memory, _ = nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=source.shape[1])
        valid, keys = torch.arange(source.shape[1]) < ns[:, None], self.keys(memory)
        state = torch.tanh(self.bridge(torch.cat([h[0], h[1]], -1)))
        read = torch.cat([torch.full((len(target), 1), self.start), target[:, :-1]], 1)
        logits = []
        for e in self._dropped(self.target(read)).unbind(1):
            weights = torch.softmax((keys * state[:, None]).sum(-1).masked_fill(~valid, -1e30), -1)
            context = (weights[:, None] @ memory)[:, 0]
            state = self.say(torch.cat([e, context], -1), state)
            logits.append(self.out(torch.cat([state, context], -1)))
        return torch.stack(logits, 1), None

    def weights(self, model) -> dict[str, Any]:
        """Its weights under our names."""
        found = {}
        for place, net, suffix in (("encoder.0.forward", self.read, "_l0"), ("encoder.0.backward", self.read, "_l0_reverse"),
                                   ("decoder.0", self.say, "")):
            for side in "ih":
                for kind, name in (("W", "weight"), ("b", "bias")):
                    rows = np.split(getattr(net, f"{name}_{side}h{suffix}").detach().numpy(), 3)
                    found |= {f"{place}.weights.{kind}_{side}{g}": r for g, r in zip("rzn", rows, strict=True)}
        for place, part in (("source_embedding", self.source), ("target_embedding", self.target),
                            ("attention.memory", self.keys), ("bridge.0.0", self.bridge), ("out", self.out)):
            found |= {f"{place}.{k}": p.detach().numpy() for k, p in part.named_parameters()}
        return found


def twin(layer: Any) -> nn.Module:
    """A layer or model of ours in PyTorch, with the same weights."""
    if isinstance(layer, (tr.nn.RNN, tr.nn.LSTM, tr.nn.GRU)):
        return Packed(layer)
    if isinstance(layer, tr.nn.Embedding):
        return nn.Embedding.from_pretrained(tensor(layer.weight.numpy()), freeze=False, padding_idx=layer.padding_idx)
    if isinstance(layer, tr.nn.Linear):
        net = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None)
        net.load_state_dict({k: tensor(v) for k, v in layer.state_dict().items()})
        return net
    if isinstance(layer, tr.nn.Lambda):
        return nn.ReLU()
    for kind, make in ((tr.nn.Dropout, lambda: nn.Dropout(layer.p)), (tr.nn.Pool, lambda: Pooled(layer.reduction)),
                       (tr.nn.Last, lambda: Pooled("last")), (tr.nn.Sequential, lambda: Chain(layer)),
                       (Captioner, lambda: Caption(layer)), (Forecast, lambda: Year(layer)),
                       (tr.nn.EncoderDecoder, lambda: Translator(layer))):
        if isinstance(layer, kind):
            return make()
    raise TypeError(f"no twin for {type(layer).__name__}")


def loss_of(loss: Any, output, target, lengths):
    """The mean over the targets that count."""
    f, valid = nn.functional, None
    if lengths is not None and target.ndim > 1 and target.shape[1] == output.shape[1] and output.ndim > 2:
        valid = torch.arange(target.shape[1]) < lengths[:, None]
    if loss in ("mse", "bce_with_logits"):
        return f.mse_loss(output, target) if loss == "mse" else f.binary_cross_entropy_with_logits(output, target)
    ignored = 0 if callable(loss) else -100  # the only loss of one's own ignores blanks
    kept = target if valid is None else target.masked_fill(~valid, -100)
    return f.cross_entropy(output.reshape(-1, output.shape[-1]), kept.reshape(-1), ignore_index=ignored)


def model_keeps_time(model: Any) -> bool:
    """Whether the output has a step for every step of the input."""
    return not any(m.ends_time for _, m in model.named_modules()) and not isinstance(model, (Captioner, Forecast))


class TorchRun(Run):
    """A run whose training is PyTorch's."""

    def fit(self, model, x, y, *, optimizer, epochs, batch_size=32, lengths=None, loss="cross_entropy", tbptt=None,
            bucket=False, rng=0, **_):
        torch.manual_seed(rng)
        generator, net = np.random.default_rng(rng), twin(model)
        seq2seq = isinstance(model, tr.nn.EncoderDecoder)
        timed = int(seq2seq) if loss not in ("mse", "bce_with_logits") and model_keeps_time(model) else None
        data = Data((x, y) if seq2seq else x, y, lengths)
        batches = Batches(data, batch_size, lambda data: timed, bucket=bucket, tbptt=tbptt)
        steps = self._optimiser(net, optimizer)
        for _ in range(epochs):
            net.train()
            state = None
            for piece in batches.pieces(None if tbptt else generator):
                state = self._step(net, batches.batch(piece), None if piece.fresh else state, loss, optimizer, steps, tbptt)
        self._give_back(net, model)
        model.eval()
        return _Flat()

    def _optimiser(self, net, ours):
        """PyTorch's optimiser for ours; kept between fits of one optimiser."""
        found = ours.state.get("torch")
        if found is None:
            kind = {tr.optim.Adam: torch.optim.Adam, tr.optim.AdamW: torch.optim.AdamW}[type(ours)]
            options = {"weight_decay": ours.weight_decay} if isinstance(ours, tr.optim.AdamW) else {}
            optimiser = kind(net.parameters(), ours.lr, ours.betas, ours.eps, **options)
            found = optimiser, torch.optim.lr_scheduler.LambdaLR(optimiser, ours.schedule)
            ours.state = {"torch": found}
        else:
            optimiser = found[0]
            before = optimiser.param_groups[0]["params"]
            optimiser.param_groups[0]["params"] = list(net.parameters())
            for old, new in zip(before, net.parameters(), strict=True):
                optimiser.state[new] = optimiser.state.pop(old)
        return found

    def _step(self, net, batch, state, loss, ours, steps, tbptt):
        optimiser, schedule = steps
        x, y = batch["x"], tensor(batch["y"])
        lengths = batch.get("lengths")
        if lengths is not None:
            lengths = tuple(map(torch.tensor, lengths)) if isinstance(lengths, tuple) else torch.tensor(lengths)
        if isinstance(x, tuple):
            output, after = net(*map(tensor, x), *(() if lengths is None else (lengths,)))
        elif tbptt:
            output, after = net(tensor(x), lengths, state)
        else:
            output, after = net(tensor(x), lengths)
        optimiser.zero_grad()
        last = lengths[-1] if isinstance(lengths, tuple) else lengths
        loss_of(loss, output, y, last).backward()
        if ours.clip_norm is not None:
            nn.utils.clip_grad_norm_(net.parameters(), ours.clip_norm)
        optimiser.step()
        schedule.step()
        return None if after is None or not tbptt else tuple(s.detach() for s in after)

    def _give_back(self, net, model) -> None:
        """PyTorch's weights, under our names."""
        if isinstance(net, Translator):
            found = net.weights(model)
        else:
            values = [p.detach().numpy() for p in net.parameters()]
            found = dict(zip((k for k, _ in model.named_parameters()), values, strict=True))
        for k, p in model.named_parameters():
            p.assign(found[k])

    def figure(self, figure: Any) -> None:
        """The figures are those of tinyrnn's own training."""

    def finish(self) -> int:
        self.name += ".torch"
        super().finish()
        return 0


class _Flat(History):
    """A history without numbers: figures are not drawn here."""

    def __getitem__(self, name: str) -> list[float]:
        return []


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("example")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--out", type=Path, default=DOCS)
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    plain_figures()
    run = TorchRun(arguments.example, arguments.short, arguments.out)
    raise SystemExit(run.all(importlib.import_module(arguments.example).main, arguments.seeds))
