"""A benchmark of the protocol logistic's regressions against scikit-learn's.

    python benchmarks/logistic.py [--features=digits | FILE.npz] [--values=45]

Both fit the paper's strengths of L2 on the same features: scikit-learn one after another in
float64, by its L-BFGS and tolerance; ours all at once in float32. Each measurement is a new
process, and the two alternate. The output is the ratio of the median times, ours over
scikit-learn's, with the compilation and without it, and how far our losses are above and below.

FILE.npz is what `simclr-eval --config=eval/embed` writes of images with labels.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
import warnings
from typing import Any

import numpy as np

ROUNDS = 3  # The number of processes of each kind.
ITERATIONS = 1000  # The largest number of scikit-learn's iterations.


def load(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The features (n, F) float32 of the training images, and their labels (n,)."""
    if name == "digits":
        from sklearn import datasets

        x, labels = datasets.load_digits(return_X_y=True)
        return (x / 16).astype(np.float32), labels.astype(np.int32)
    archive = np.load(name)
    train = (archive["split"] == "train") & (archive["label"] >= 0)
    return archive["features"][train], archive["label"][train]


def of_sklearn(x: np.ndarray, labels: np.ndarray, strengths: np.ndarray) -> dict[str, Any]:
    """The "losses" of all strengths, and the "seconds" that they take."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    warnings.simplefilter("ignore", ConvergenceWarning)
    double = x.astype(np.float64)
    begin = time.perf_counter()
    fits = [LogisticRegression(C=1 / k, max_iter=ITERATIONS).fit(double, labels) for k in strengths]
    seconds = time.perf_counter() - begin
    found = [(fit.coef_.T, fit.intercept_) for fit in fits]
    return {"seconds": seconds, "losses": losses(x, labels, strengths, found)}


def of_ours(x: np.ndarray, labels: np.ndarray, strengths: np.ndarray) -> dict[str, Any]:
    """The same; "seconds" is the first time, with the compilation, and "again" the second."""
    from simclr_jax import mesh as meshes
    from simclr_jax.evals.features import Features
    from simclr_jax.evals.passes import Rows
    from simclr_jax.evals.regression import Regressions

    classes, times = int(labels.max()) + 1, []
    for _ in range(2):
        begin = time.perf_counter()
        columns = len(strengths) * classes
        rows = Rows([Features(x, labels)], columns=columns, mesh=meshes.make())
        fit = Regressions(rows, classes).fit(np.ones(len(x)), strengths)
        times.append(time.perf_counter() - begin)
    found = list(zip(fit.kernel, fit.bias, strict=True))
    return {
        "seconds": times[0],
        "again": times[1],
        "losses": losses(x, labels, strengths, found),
    }


def losses(x: np.ndarray, labels: np.ndarray, strengths: np.ndarray, found: Any) -> list[float]:
    """The mean cross-entropy plus λ/2N · ‖W‖² of each strength, in float64."""
    values = []
    for strength, (kernel, bias) in zip(strengths, found, strict=True):
        kernel, bias = kernel.astype(np.float64), bias.astype(np.float64)
        logits = x.astype(np.float64) @ kernel + bias
        logits -= logits.max(axis=1, keepdims=True)
        entropy = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(x)), labels]
        values.append(float(entropy.mean() + strength / (2 * len(x)) * np.sum(kernel**2)))
    return values


def main() -> None:
    """Runs the processes and prints the ratios, or with --measure runs one measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", default="digits")
    parser.add_argument("--values", type=int, default=45)
    parser.add_argument("--measure", choices=["sklearn", "ours"])
    flags = parser.parse_args()
    x, labels = load(flags.features)
    if flags.measure:
        measured = {"sklearn": of_sklearn, "ours": of_ours}[flags.measure]
        print(json.dumps(measured(x, labels, np.geomspace(1e-6, 1e5, flags.values))))
        return
    found: dict[str, list[dict[str, Any]]] = {"sklearn": [], "ours": []}
    for _ in range(ROUNDS):
        for kind, results in found.items():
            child = [sys.executable, __file__, *sys.argv[1:], f"--measure={kind}"]
            results.append(json.loads(subprocess.check_output(child).splitlines()[-1]))
            times = {key: f"{value:.2f}" for key, value in results[-1].items() if key != "losses"}
            print(kind, times, flush=True)
    seconds = statistics.median(each["seconds"] for each in found["sklearn"])
    first, again = (
        statistics.median(each[key] for each in found["ours"]) / seconds
        for key in ("seconds", "again")
    )
    ours, theirs = (np.array(found[kind][0]["losses"]) for kind in ("ours", "sklearn"))
    print(
        f"{len(x)} images, {x.shape[1]} features, {flags.values} values: {first:.2f} of "
        f"scikit-learn's time, {again:.2f} without compilation; losses "
        f"up to {(ours - theirs).max():.1e} above its, and up to {(theirs - ours).max():.1e} below"
    )


if __name__ == "__main__":
    main()
