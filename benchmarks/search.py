"""A benchmark of a search by plain products against usearch's graph of neighbours.

    python benchmarks/search.py [--images=10000,100000,1000000] [--graph=10000]

Both find the 10 nearest of random features, plain products exactly and usearch's HNSW (its
defaults, float32, cosine distance) nearly. For each number of images the output has the time of a
query by either and their ratio, alternating, the fraction of the true neighbours that usearch
finds, and how many queries it takes until building its graph has paid for itself. Above --graph
images building takes long, and plain products are measured alone. The features of plain products
are mapped from a file, as those of an index are. Random features are the hardest for a graph.
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from usearch.index import Index  # pip install usearch

from simclr_jax.evals.similarity import nearest

K = 10  # The number of neighbours.


def written(path: Path, images: int, dim: int, rng: np.random.Generator) -> np.ndarray:
    """Random features (images, dim) float32, mapped from a file."""
    x = np.lib.format.open_memmap(path, "w+", np.float32, (images, dim))
    for start in range(0, images, 2**14):
        part = x[start : start + 2**14]
        part[:] = rng.normal(size=part.shape)
    x.flush()
    return np.load(path, mmap_mode="r")


def timed(work: Any) -> tuple[float, Any]:
    """The seconds that a function takes, and what it returns."""
    begin = time.perf_counter()
    found = work()
    return time.perf_counter() - begin, found


def measure_plain(x: np.ndarray, rounds: int, rng: np.random.Generator) -> str:
    """The line about a number of images that plain products alone search."""
    queries = rng.normal(size=(rounds, 1, x.shape[1])).astype(np.float32)
    seconds = [timed(lambda query=query: nearest(query, x, K))[0] for query in queries]
    many = rng.normal(size=(100, x.shape[1])).astype(np.float32)
    together, _ = timed(lambda: nearest(many, x, K))
    return (
        f"{len(x):>9,} images: plain {1e3 * statistics.median(seconds):.1f} ms a query, "
        f"{10 * together:.1f} ms each of 100 at once"
    )


def measure(x: np.ndarray, rounds: int, rng: np.random.Generator) -> str:
    """The line about a number of images that both search."""
    graph = Index(ndim=x.shape[1], metric="cos", dtype="f32")
    building, _ = timed(lambda: graph.add(np.arange(len(x)), x))
    plain, by_graph, recall = [], [], []
    for _ in range(rounds):
        query = rng.normal(size=(1, x.shape[1])).astype(np.float32)
        seconds, exact = timed(lambda query=query: nearest(query, x, K))
        plain.append(seconds)
        seconds, near = timed(lambda query=query: graph.search(query[0], K))
        by_graph.append(seconds)
        recall.append(len(set(exact.rows[0].tolist()) & set(near.keys.tolist())) / K)
    one, other = statistics.median(plain), statistics.median(by_graph)
    return (
        f"{len(x):>9,} images: plain {1e3 * one:.1f} ms, usearch {1e3 * other:.2f} ms a query "
        f"(ratio {one / other:.0f}), recall {statistics.mean(recall):.2f}, graph built in "
        f"{building:.1f} s, worth {building / max(one - other, 1e-9):,.0f} queries"
    )


def main() -> None:
    """Prints a line for each number of images."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", default="10000,100000,1000000", help="numbers of features")
    parser.add_argument("--graph", type=int, default=10000, help="the most images for usearch")
    parser.add_argument("--dim", type=int, default=512, help="the dimensions of a feature")
    parser.add_argument("--rounds", type=int, default=5, help="queries of each number")
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for images in map(int, arguments.images.split(",")):
            x = written(Path(folder) / f"{images}.npy", images, arguments.dim, rng)
            one = measure if images <= arguments.graph else measure_plain
            print(one(x, arguments.rounds, rng), flush=True)


if __name__ == "__main__":
    main()
