"""What PyTorch answers, recorded: `python -m tinyrnn_tests.goldens` writes it anew (needs torch)."""

from pathlib import Path

import numpy as np

FILE = Path(__file__).with_name("goldens.npz")
T, B, X, H = 5, 4, 3, 2
LENGTHS = np.array([3, 5, 1, 4])
CASES = {f"{kind}-{layers}{'-bi' if both else ''}{'-ragged' if ragged else ''}{'' if bias else '-nobias'}":
         (kind, layers, both, ragged, bias)
         for kind in ("RNN", "LSTM", "GRU")
         for layers, both, ragged, bias in ((1, False, False, True), (1, False, True, True), (2, False, False, False),
                                            (3, True, False, True), (3, True, True, True))}


def torch_answers(case, rng):
    """Random unequal weights, inputs, initial states and cotangents; outputs, states and every gradient."""
    import torch

    kind, layers, both, ragged, bias = CASES[case]
    net = getattr(torch.nn, kind)(X, H, num_layers=layers, bidirectional=both, bias=bias, batch_first=True).double()
    n = layers * (1 + both)
    draw = lambda *shape: rng.normal(scale=0.8, size=shape)
    record = {f"weight {k}": draw(*p.shape) for k, p in net.named_parameters()}
    with torch.no_grad():
        for k, p in net.named_parameters():
            p.copy_(torch.tensor(record[f"weight {k}"]))
    record |= {"x": draw(B, T, X), "h0": draw(n, B, H), "c0": draw(n, B, H), "dy": draw(B, T, H * (1 + both)),
               "dh": draw(n, B, H), "dc": draw(n, B, H)}
    t = {k: torch.tensor(record[k], requires_grad=k in ("x", "h0", "c0")) for k in ("x", "h0", "c0", "dy", "dh", "dc")}
    state = (t["h0"], t["c0"]) if kind == "LSTM" else t["h0"]
    if ragged:
        packed = torch.nn.utils.rnn.pack_padded_sequence(t["x"], torch.tensor(LENGTHS), batch_first=True,
                                                         enforce_sorted=False)
        y, end = net(packed, state)
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=True, total_length=T)
    else:
        y, end = net(t["x"], state)
    h, c = end if kind == "LSTM" else (end, None)
    loss = (y * t["dy"]).sum() + (h * t["dh"]).sum() + (0 if c is None else (c * t["dc"]).sum())
    loss.backward()
    record |= {"y": y, "h": h, "grad x": t["x"].grad, "grad h0": t["h0"].grad}
    if c is not None:
        record |= {"c": c, "grad c0": t["c0"].grad}
    record |= {f"grad {k}": p.grad for k, p in net.named_parameters()}
    return {k: v.detach().numpy() if hasattr(v, "detach") else v for k, v in record.items()}


def check_layer(case, record):
    """Our layer with the same weights must give the same outputs, states and gradients, to 1e-10."""
    import tinyrnn as tr

    from .oracles import assert_close

    kind, layers, both, ragged, bias = CASES[case]
    layer = getattr(tr.nn, kind)(X, H, num_layers=layers, bidirectional=both, bias=bias, dtype="float64")
    layer.load_state_dict({k.removeprefix("weight "): v for k, v in record.items() if k.startswith("weight ")})
    x, h0, c0 = (tr.parameter(record[k], k) for k in ("x", "h0", "c0"))
    y, end = layer(x, (h0, c0) if kind == "LSTM" else h0, lengths=LENGTHS if ragged else None)
    h, c = end if kind == "LSTM" else (end, None)
    loss = (y * record["dy"]).sum() + (h * record["dh"]).sum()
    loss = loss if c is None else loss + (c * record["dc"]).sum()
    wanted = {"x": x, "h0": h0, **({} if c is None else {"c0": c0}), **dict(layer.named_parameters())}
    found = {"y": y, "h": h, **({} if c is None else {"c": c}),
             **{f"grad {k}": g for k, g in tr.grad(loss, wanted).items()}}
    for k, v in found.items():
        assert_close(v.numpy(), record[k], 1e-10, f"{case}: {k}")


def read():
    """The recorded answers by case."""
    records = {case: {} for case in CASES}
    with np.load(FILE) as data:
        for key in data.files:
            case, _, name = key.partition("/")
            records[case][name] = data[key]
    return records


def write():
    rng = np.random.default_rng(20261121)
    flat = {f"{case}/{k}": v for case in CASES for k, v in torch_answers(case, rng).items()}
    np.savez_compressed(FILE, **flat)
    print(f"{FILE}: {len(flat)} arrays of {len(CASES)} cases")


if __name__ == "__main__":
    write()
