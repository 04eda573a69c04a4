"""Two sets of embeddings, row by row: partners of a pair, or two representations of one thing."""

import jax
import jax.numpy as jnp
import numpy as np

from rlkit.losses.alignment import alignment, cross_uniformity, uniformity
from rlkit.metrics import geometry, rank, retrieval
from rlkit.metrics import similarity as similarities
from rlkit.numerics import safe_normalize
from rlkit.profile.sections import NEIGHBORS, Section, of_sample
from rlkit.profile.sphere import cosines_of_others, least_uniformity


def pairs(x: np.ndarray, y: np.ndarray, n: int) -> Section:
    """Two views or modalities, row i of one paired with row i of the other."""
    section = Section("Pairs", of_sample(x, n) + " Rows are normalised first.")

    @jax.jit
    def measure(x, y):
        x, y = safe_normalize(x), safe_normalize(y)
        own = jnp.arange(x.shape[0])[:, None]
        block = 1024
        return {
            "cosines": jnp.sum(x * y, axis=1),
            "alignment": jnp.mean(alignment(x, y)),
            "uniformity": (uniformity(x, block_size=block), uniformity(y, block_size=block)),
            "cross": cross_uniformity(x, y, block_size=block),
            "gap": geometry.modality_gap(x, y),
            "apart": geometry.modality_separability(x, y),
            "forth": retrieval.recall_at_k(retrieval.ranks(x, y, own), k=1),
            "back": retrieval.recall_at_k(retrieval.ranks(y, x, own), k=1),
        }

    found = jax.device_get(measure(jnp.asarray(x), jnp.asarray(y)))
    section.add("mean pair cosine", found["cosines"].mean(), "How close partners are.")
    section.add(
        "alignment",
        found["alignment"],
        "Mean squared distance of partners; 0 is best, 2 is unrelated.",
    )
    best = least_uniformity(x.shape[1])
    for side, value in zip(("first", "second"), found["uniformity"], strict=True):
        section.add(
            f"uniformity, {side}",
            value,
            f"Log mean Gaussian potential; a uniform cloud has {best:.2f}, lower is more even.",
        )
    section.add("cross-uniformity", found["cross"], "The same across the two, without partners.")
    section.add(
        "modality gap",
        found["gap"],
        "Distance of the two means; a linear rule tells the sides apart in "
        f"{found['apart']:.0%} of rows. "
        + (
            "A gap is left by contrastive training at low temperature; shifting the means together "
            "or a cross-uniformity term closes it, which need not improve retrieval."
            if found["gap"] > 0.2
            else "The sides share one region."
        ),
    )
    section.add(
        "recall@1, first to second",
        found["forth"],
        f"Share of rows whose partner is nearest of all {len(x):,}; depends on that number.",
    )
    section.add("recall@1, second to first", found["back"], "The other way.")
    if len(x) > x.shape[1]:
        lidar = jax.jit(lambda x, y: rank.lidar(jnp.stack([x, y], axis=1)))(x, y)
        section.add(
            "LiDAR",
            lidar,
            "Directions in which rows differ more than partners do; of views of one encoder, the "
            "higher one usually probes better.",
        )
    section.plots["pair cosines"] = {
        "partners": found["cosines"],
        "others": cosines_of_others(x, y),
    }
    return section


def comparison(x: np.ndarray, y: np.ndarray, n: int) -> Section:
    """Two representations of the same rows."""
    section = Section(
        "Compared with the second file", of_sample(x, n) + " Row i of both files is one example."
    )
    k = min(NEIGHBORS, len(x) - 1)
    x, y = jnp.asarray(x), jnp.asarray(y)
    if len(x) >= 4:
        section.add(
            "CKA, unbiased",
            jax.jit(lambda x, y: similarities.cka(x, y, unbiased=True))(x, y),
            "1: the same up to rotation and scale; about 0: unrelated.",
        )
    section.add(
        f"shared of {k} neighbours",
        jax.jit(lambda x, y: similarities.mutual_knn(x, y, k=k))(x, y),
        f"Agreement of neighbourhoods; unrelated files share {k / (len(x) - 1):.3f}.",
    )
    some = min(len(x), 1000)
    section.add(
        "RSA",
        jax.jit(similarities.rsa)(x[:some], y[:some]),
        f"Rank correlation of the distances of {some:,} rows.",
    )
    section.add(
        "Procrustes",
        jax.jit(similarities.procrustes)(x, y),
        "Similarity after the best rotation; 1: the same up to rotation and scale.",
    )
    return section
