"""One to one: a handwritten digit and its name, without any memory; the plain network that the others grow from."""

import matplotlib.pyplot as plt
import numpy as np
from common import Run, accuracy, start

import tinyrnn as tr
from tinyrnn import datasets


def logistic_regression(x, y, x_test):
    """The baseline: one linear score for each digit."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=2000).fit(x, y).decision_function(x_test)


def main(run: Run) -> None:
    x, y, x_test, y_test = datasets.digits()
    model = tr.nn.Sequential(
        tr.nn.Linear(64, 128, rng=0),
        tr.nn.Lambda(tr.relu),
        tr.nn.Dropout(0.3),
        tr.nn.Linear(128, 10, rng=1))
    epochs, batch = 60, 32
    steps = epochs * -(-len(x) // batch)
    history = run.train(model, x, y, optimizer=tr.optim.Adam(3e-3, schedule=tr.optim.Cosine(steps)), metrics=("accuracy",),
                        validation=(x_test, y_test), epochs=epochs, batch_size=batch)
    centres = np.array([x[y == k].mean(0) for k in range(10)])
    run.result("accuracy", accuracy(model.predict(x_test), y_test),
               logistic_regression=accuracy(logistic_regression(x, y, x_test), y_test),
               nearest_mean_picture=accuracy(-((x_test[:, None] - centres) ** 2).sum(-1), y_test))

    figure, axes = plt.subplots()
    axes.plot(range(1, len(history) + 1), history["accuracy"], label="pictures it learned from")
    axes.plot(range(1, len(history) + 1), history["val_accuracy"], label="held-out pictures")
    axes.set(xlabel="epoch", ylabel="accuracy", title="Handwritten digits", ylim=(0.8, 1))
    axes.legend()
    run.figure(figure)


if __name__ == "__main__":
    start(main)
