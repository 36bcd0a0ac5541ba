"""A character model of Shakespeare: streams of text, truncated backpropagation, text that it writes."""

import matplotlib.pyplot as plt
import numpy as np
from common import Run, start

import tinyrnn as tr
from tinyrnn import datasets


def main(run: Run) -> None:
    text = datasets.shakespeare()
    characters = datasets.Vocabulary(text)
    tokens = characters(text)
    cut = len(tokens) * 9 // 10
    x, y = datasets.continued(tokens[:cut], 32)
    x_test, y_test = datasets.continued(tokens[cut:], 8)
    if run.short:
        x, y, x_test, y_test = x[:, :300], y[:, :300], x_test[:, :300], y_test[:, :300]
    size = len(characters)
    model = tr.nn.Sequential(
        tr.nn.Embedding(size, 64, rng=0),
        tr.nn.LSTM(64, 256, rng=1),
        tr.nn.Dropout(0.4),
        tr.nn.Linear(256, size, rng=2))
    epochs = 12
    steps = epochs * -(-x.shape[1] // 100)
    history = run.train(model, x, y, tbptt=100, batch_size=32, epochs=epochs, validation=(x_test, y_test),
                        optimizer=tr.optim.Adam(3e-3, clip_norm=1.0, schedule=tr.optim.Cosine(steps, 0.05)))
    nats = model.evaluate(x_test, y_test, loss="cross_entropy", tbptt=500)["loss"]
    counted = datasets.NGrams(5).fit(x, size)
    run.result("nats per character", nats, five_grams=counted.nats(y_test.tolist()))

    prompt = characters("ROMEO")
    written = model.generate(prompt, 300, temperature=0.6, rng=1)
    print("".join(characters.tokens(written)))
    figure, axes = plt.subplots()
    epochs_run = np.arange(1, len(history) + 1)
    axes.plot(epochs_run, history["loss"], label="text it learns from")
    axes.plot(epochs_run, history["val_loss"], label="held-out text")
    axes.axhline(run.results[0]["baselines"]["five_grams"], color="black", linestyle=":", label="5-grams, held-out text")
    axes.set(xlabel="epoch", ylabel="nats per character", title="Learning to write like Shakespeare")
    axes.legend()
    run.figure(figure)


if __name__ == "__main__":
    start(main)
