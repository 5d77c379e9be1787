"""Clusters: the nearest centre, or a way down a tree of them."""

from typing import Any

from ketch.compiler import NotCompiled, estimator
from ketch.compiler.build import Build
from ketch.compiler.values import Answers, Tensor, X

Way = list[tuple[int, float]]  # forks, and on which side of each: 1 for left, -1 for right


def nearest(g: Build, x: X, centers: Any) -> Tensor:
    """Give the place of the nearest centre (centers, columns); the first one counts where several are."""
    return g.node("ArgMin", g.squares(x, centers), axis=1, keepdims=0, width=1)


@estimator("KMeans", "MiniBatchKMeans")
def k_means(g: Build, model: Any, x: X) -> Answers:
    """Lower to the largest of a sum for each centre, since a row's own length is the same for all."""
    centers = model.cluster_centers_.astype(float)
    apart = g.linear(x, -2.0 * centers.T, (centers**2).sum(axis=1))
    return Answers(labels=g.node("ArgMin", apart, axis=1, keepdims=0, width=1))


@estimator("MeanShift", "AffinityPropagation")
def settled(g: Build, model: Any, x: X) -> Answers:
    """Lower to the nearest centre."""
    if not len(model.cluster_centers_):
        raise NotCompiled("it found no cluster")
    return Answers(labels=nearest(g, x, model.cluster_centers_.astype(float)))


@estimator("Birch")
def birch(g: Build, model: Any, x: X) -> Answers:
    """Lower to the nearest subcluster and what became of it."""
    place = nearest(g, x, model.subcluster_centers_.astype(float))
    return Answers(labels=g.node("Gather", model.subcluster_labels_.astype("int64"), place, axis=0))


@estimator("BisectingKMeans")
def bisecting(g: Build, model: Any, x: X) -> Answers:
    """Lower to all forks at once: a row is in the leaf whose every fork it takes."""
    np = g.np
    forks: list[tuple[Any, Any]] = []
    leaves: list[tuple[int, Way]] = []
    offset = getattr(model, "_X_mean", 0.0)
    waiting: list[tuple[Any, Way]] = [(model._bisecting_tree, [])]
    while waiting:
        node, taken = waiting.pop()
        if node.left is None:
            leaves.append((node.label, taken))
            continue
        waiting += [(node.right, [*taken, (len(forks), -1.0)]), (node.left, [*taken, (len(forks), 1.0)])]
        forks.append((node.left.center + offset, node.right.center + offset))
    if not forks:
        raise NotCompiled("it found no cluster")
    weights = np.stack([2.0 * (left - right) for left, right in forks], axis=1)
    bias = np.array([right @ right - left @ left for left, right in forks])
    on_left = g.cast(g.node("GreaterOrEqual", g.linear(x, weights, bias), 0.0), "double") * 2.0 - 1.0
    ways = np.zeros((len(forks), len(leaves)))
    for leaf, (_, taken) in enumerate(leaves):
        for fork, side in taken:
            ways[fork, leaf] = side
    hits = g.linear(on_left, ways, [-float(len(taken)) for _, taken in leaves])
    place = g.node("ArgMax", hits, axis=1, keepdims=0, width=1)
    return Answers(labels=g.node("Gather", np.array([label for label, _ in leaves], dtype="int64"), place, axis=0))
