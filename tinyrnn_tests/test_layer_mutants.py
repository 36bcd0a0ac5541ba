"""Planted bugs in layers, losses and training; each must be noticed by a check that the other tests rely on."""

from dataclasses import replace

import numpy as np
import pytest

import tinyrnn as tr
from tinyrnn.cells import variants
from tinyrnn.nn import noise, packed
from tinyrnn.train import task
from tinyrnn.train.run import Mean, Run

from . import loops, test_layers, test_seq2seq, test_training

LSTM, NOISY = packed.lstm, noise.noisy


def edited(*changes):
    """The LSTM's equations with changes."""
    def make(**options):
        text = LSTM(**options).text
        for old, new in zip(changes[::2], changes[1::2], strict=True):
            assert old in text
            text = text.replace(old, new)
        return tr.Cell(text, "LSTM")
    return lambda patch: patch.setattr(packed, "lstm", make)


def lstm_check(**options):
    def check(patch):
        layer = test_layers.shaken(tr.nn.LSTM(3, 6, dtype="float64", **options))
        test_layers.check_against_loop(layer, lambda x, h, c, p: loops.lstm_step(x, h, c, p, **options),
                                       [options.get("proj_size") or 6, 6], test_layers.holes())
    return check


def noisy_with(old, new):
    """Cells with zoneout and dropout, with one change in their equations."""
    def make(*args):
        found = NOISY(*args)
        text = found.cell.text
        return replace(found, cell=tr.Cell(text.replace(old, new), "noisy")) if old in text else found
    return lambda patch: patch.setattr(noise, "noisy", make)


def everywhere(state):
    """Recurrent dropout outside of products as well."""
    def masked(term, names, inside, original=variants._masked):
        return original(term, names, True)
    return lambda patch: patch.setattr(variants, "_masked", masked)


def kept_state(patch):
    """Streams that begin anew at every piece."""
    def forget(self, piece, where, original=Run._step):
        self.carried = None
        original(self, piece, where)
    patch.setattr(Run, "_step", forget)


def batch_mean(patch):
    """A mean over batches, not over targets."""
    patch.setattr(Mean, "add", lambda self, numbers, weight, original=Mean.add: original(self, numbers, 1.0))


def unweighted(patch):
    """Accumulated batches all count alike."""
    def gather(self, given, weight, where, original=Run._gather):
        return original(self, given, 1.0, where)
    patch.setattr(Run, "_gather", gather)


def padding_counts(patch):
    patch.setattr(task, "row_mask", lambda steps, lengths, original=task.row_mask: original(steps, lengths) | True)


MUTANTS = {
    "peepholes of i and f swapped": (edited("p_i *", "p_x *", "p_f *", "p_i *", "p_x *", "p_f *"), lstm_check(peephole=True)),
    "the output gate sees the old c": (edited("p_o * c[t]", "p_o * c[t-1]"), lstm_check(peephole=True)),
    "coupled the other way": (edited("i[t] = 1 - f[t]", "i[t] = f[t]"), lstm_check(coupled=True)),
    "c not normalised": (edited("layer_norm(c[t])", "c[t]"), lstm_check(layer_norm=True)),
    "clipping the state of another step": (edited("clip(f[t] * c[t-1] + i[t] * g[t], -0.3, 0.3)", "f[t] * clip(c[t-1], -0.3, 0.3) + i[t] * g[t]"),
                                           lstm_check(cell_clip=0.3)),
    "clipping after the function": (edited("tanh(clip(c[t], -0.4, 0.4))", "clip(tanh(c[t]), -0.4, 0.4)"), lstm_check(clip=0.4)),
    "zoneout keeps the new state": (noisy_with("keep_h[t] * h[t-1] + (1 - keep_h[t]) * new_h[t]", "keep_h[t] * new_h[t] + (1 - keep_h[t]) * h[t-1]"),
                                    lambda patch: test_layers.test_zoneout_against_a_loop(patch, True)),
    "h computed from the mixed c": (noisy_with("tanh(new_c[t])", "tanh(c[t])"), lambda patch: test_layers.test_zoneout_against_a_loop(patch, False)),
    "dropout outside of products": (everywhere("h"), lambda patch: test_layers.test_recurrent_dropout_against_a_loop(patch, "GRU")),
    "a padding row that is trained": (lambda patch: patch.setattr(tr.nn.layers, "stop_gradient", lambda y: y),
                                      lambda patch: test_layers.test_embedding_padding_and_pretrained()),
    "attention reads the padding": (lambda patch: patch.setattr(tr.nn.seq2seq, "valid_steps", lambda *a: None),
                                    lambda patch: test_seq2seq.test_against_a_loop_over_single_rows("dot", True)),
    "coins the other way": (lambda patch: patch.setattr(tr.nn.seq2seq, "where", lambda c, a, b: tr.where(c, b, a)),
                            lambda patch: test_seq2seq.test_scheduled_sampling_reads_what_the_coins_say(patch, 0.5)),
    "a state forgotten between pieces": (kept_state, lambda patch: test_training.test_tbptt_is_the_manual_loop()),
    "a mean over batches": (batch_mean, lambda patch: test_training.test_metrics_over_batches()),
    "accumulated batches alike": (unweighted, lambda patch: test_training.test_accumulated_batches_are_one_large_batch()),
    "padding in the loss": (padding_counts, lambda patch: test_training.test_metrics_over_batches()),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_planted_bug_is_noticed(name, monkeypatch):
    plant, check = MUTANTS[name]
    with monkeypatch.context() as patch:
        plant(patch)
        with pytest.raises(AssertionError):
            check(patch)
    with monkeypatch.context() as patch:
        check(patch)


def test_resume_forgets_nothing(tmp_path, monkeypatch):
    """Whatever a checkpoint leaves out, the comparison of runs notices."""
    from tinyrnn.train import run as loop
    original = loop.read_checkpoint
    whole, _ = test_training.run_to(tmp_path / "whole", monkeypatch, optimizer=tr.optim.Adam(0.01), save_every=2)
    for missing in ("rng", "before", "done", "optimizer"):
        folder = tmp_path / missing
        with pytest.raises(test_training.KilledError):
            test_training.run_to(folder, monkeypatch, 7, optimizer=tr.optim.Adam(0.01), save_every=2)

        def damaged(path, missing=missing):
            found = original(path)
            if found is not None:
                other = {"rng": np.random.default_rng(1).bit_generator.state, "before": np.random.default_rng(1).bit_generator.state,
                         "done": found["done"] + 1}
                if missing == "optimizer":
                    found["optimizer"]["step"] += 1
                else:
                    found[missing] = other[missing]
            return found

        with monkeypatch.context() as patch:
            patch.setattr(loop, "read_checkpoint", damaged)
            state, _ = test_training.run_to(folder, patch, optimizer=tr.optim.Adam(0.01), save_every=2)
        assert any(not np.array_equal(state[k], whole[k]) for k in whole), missing
