"""What a set of embeddings is good for: labels read off, dimensions spared, documents found."""

import jax
import jax.numpy as jnp
import numpy as np

from rlkit.metrics import probes, retrieval
from rlkit.metrics import similarity as similarities
from rlkit.profile.sections import NEIGHBORS, Section, of_sample


def classes(z: np.ndarray, y: np.ndarray, names: list[str], n: int, seed: int) -> Section:
    """Probes: how much of the labels simple rules read off."""
    train, test = split(y, seed)
    most = np.bincount(y[test]).max() / len(test)
    section = Section(
        "Labels",
        of_sample(z, n) + f" Probes are fitted to {len(train):,} rows and tested on {len(test):,}; "
        f"{len(names):,} classes, the most frequent one has {most:.1%}.",
    )
    a, b = (
        (jnp.asarray(z[train]), jnp.asarray(y[train])),
        (jnp.asarray(z[test]), jnp.asarray(y[test])),
    )
    k = len(names)
    error = 1.96 * 0.5 / np.sqrt(len(test))
    probes_of = {
        "ridge probe": lambda *d: probes.ridge_probe_loo(*d, classes=k).accuracy,
        f"{NEIGHBORS} nearest neighbours": lambda *d: probes.knn_accuracy(
            *d, classes=k, k=min(NEIGHBORS, len(train))
        ),
        "nearest class mean": lambda *d: probes.mean_classifier(*d, classes=k),
    }
    says = {
        "ridge probe": "Accuracy of a linear rule, penalty chosen by leave-one-out",
        "nearest class mean": "Accuracy of the simplest rule; close to the linear one where "
        "classes are compact clusters",
    }
    for name, probe in probes_of.items():
        value = float(jax.jit(probe)(*a, *b))
        section.add(
            name,
            value,
            says.get(name, "Accuracy of the vote of the nearest rows by cosine")
            + f" (within {error:.1%} at 95 %).",
            max(value - error, 0),
            min(value + error, 1),
        )
    return section


def truncation(z: np.ndarray, y: np.ndarray | None, n: int, seed: int) -> Section:
    """What is left when only some of the dimensions are kept."""
    if y is None and len(z) > 2000:
        z = z[np.sort(np.random.default_rng(seed).choice(len(z), 2000, replace=False))]
    d = z.shape[1]
    sizes = sorted({max(1, d * share // 100) for share in (1, 3, 6, 12, 25, 50)} | {d})
    centred = z - z.mean(0)
    components = np.linalg.eigh(centred.T @ centred)[1].T[::-1]
    order = np.random.default_rng(seed).permutation(d)
    cuts = {
        "first": lambda m: z[:, :m],
        "random": lambda m: z[:, order[:m]],
        "principal": lambda m: centred @ components[:m].T,
    }
    k = min(NEIGHBORS, len(z) - 1)
    curves: dict[str, list[float]] = {}
    if y is None:
        agree = jax.jit(lambda x, y: similarities.mutual_knn(x, y, k=k))
        what = f"agreement of the {k} nearest neighbours with those in all dimensions"
        for name, cut in cuts.items():
            reference = z if name != "principal" else centred
            curves[name] = [float(agree(cut(m), reference)) for m in sizes]
    else:
        train, test = split(y, seed)
        count = int(y.max()) + 1
        probe = jax.jit(
            lambda a, b, c, d: probes.knn_accuracy(a, b, c, d, classes=count, k=min(k, len(train)))
        )
        what = f"accuracy of {k} nearest neighbours"
        for name, cut in cuts.items():
            curves[name] = [
                float(probe(cut(m)[train], y[train], cut(m)[test], y[test])) for m in sizes
            ]
    section = Section("Truncation", of_sample(z, n) + f" Kept: {what}.")
    quarter = max(i for i, m in enumerate(sizes) if m <= max(1, d // 4))
    for name, says in (
        ("first", "Kept by the first quarter of the dimensions"),
        (
            "random",
            "Kept by a random quarter; as much as by the first means no order of importance",
        ),
        ("principal", "Kept by the first quarter of the principal components"),
    ):
        whole = curves[name][-1]
        section.add(
            f"{name} quarter",
            curves[name][quarter] / whole if whole else np.nan,
            f"{says}, as a share of all: {what}."
            + (
                " Much is redundant: a shorter vector would do."
                if whole and curves[name][quarter] > 0.9 * whole
                else ""
            ),
        )
    section.plots["truncation"] = {"sizes": np.array(sizes), **curves}
    return section


def search(queries: np.ndarray, documents: np.ndarray, relevant: np.ndarray) -> Section:
    """Retrieval of relevant documents by cosine."""
    section = Section(
        "Retrieval",
        f"{len(queries):,} queries, {len(documents):,} documents, by cosine, exact; "
        "queries without relevant documents are left out; ties share their mean rank.",
    )
    found = jax.jit(retrieval.ranks)(
        jnp.asarray(queries, jnp.float32),
        jnp.asarray(documents, jnp.float32),
        jnp.asarray(relevant),
    )
    for k in (1, 10, 100):
        if k <= len(documents):
            section.add(
                f"recall@{k}",
                retrieval.recall_at_k(found, k=k),
                f"Share of the relevant documents among the first {k}.",
            )
    section.add("MRR", retrieval.mrr(found), "Mean of 1 / rank of the first relevant document.")
    section.add(
        "nDCG@10",
        retrieval.ndcg_at_k(found, k=min(10, len(documents))),
        "Discounted gain of the first ten, of the best possible.",
    )
    section.add(
        "MAP@R",
        retrieval.map_at_r(found),
        "Mean precision over the first R, R the number relevant.",
    )
    return section


def split(y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Half of the rows of every class for fitting, the rest for testing; ascending."""
    order = np.random.default_rng(seed).permutation(len(y))
    place = np.empty(len(y), int)
    ranked = order[np.argsort(y[order], kind="stable")]
    start = np.searchsorted(y[ranked], y[ranked])
    place[ranked] = np.arange(len(y)) - start
    return np.flatnonzero(place % 2 == 0), np.flatnonzero(place % 2 == 1)
