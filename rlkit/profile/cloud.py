"""What a set of embeddings is like by itself: what it spans, favours and crowds.

Quantities of the spectrum and of single rows are those of the whole file; whatever compares rows
with one another is that of a sample, whose size the section's note states.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rlkit.metrics import dimension, isotropy, neighbors, rank
from rlkit.profile.moments import Moments, interval
from rlkit.profile.sections import NEIGHBORS, Section, of_sample
from rlkit.profile.sphere import cosines_of_others, least_uniformity


def rows(moments: Moments) -> Section:
    """What single rows and columns are like."""
    norms, d = moments.norms, len(moments.origin)
    section = Section("Rows and columns", f"All {moments.n:,} rows of {d:,} dimensions.")
    mean = norms.mean()
    spread = norms.std() / mean if mean else np.nan
    unit = np.allclose(norms, 1, atol=1e-2)
    section.add(
        "mean norm",
        mean,
        "The rows are of length one, so inner products are cosines."
        if unit
        else f"Lengths vary by {spread:.0%} of their mean; cosine and inner product rank alike "
        "only where lengths hardly vary. Normalise the rows if length means nothing.",
    )
    if zeros := int(np.sum(norms == 0)):
        section.add(
            "zero rows", zeros, "Rows that are zero have no direction; look where they come from."
        )
    if moments.constant.any():
        which = np.flatnonzero(moments.constant)
        section.add(
            "constant columns",
            len(which),
            f"Columns with one value in all rows (the first is {which[0]}) carry nothing; "
            "dead units are the usual reason.",
        )
    if (left_out := moments.rows - moments.n) > 0:
        section.add("rows left out", left_out, "Rows with NaN or infinity were left out.")
    section.plots["norms"] = norms
    return section


def spectrum(moments: Moments) -> Section:
    """Rank measures, from the singular values of all rows."""
    n, d = moments.n, len(moments.origin)
    most = min(n, d)
    groups = len(moments.count)
    section = Section(
        "Rank and spectrum",
        f"From all {n:,} rows, summed in float64. Intervals: 95 %, from leaving out each of "
        f"{groups} groups of rows in turn.",
    )
    plain, centred = (moments.singular_values(center=c) for c in (False, True))
    without = {c: moments.without_each_group(center=c) for c in (False, True)}

    def add(name, of, center, says):
        with jax.enable_x64(True):
            of_all = jax.jit(of)
            value = float(of_all(centred if center else plain))
            left_out = np.asarray(jax.jit(jax.vmap(of))(without[center]))
        section.add(name, value, says(value), *interval(value, left_out))

    def squared(of):
        return lambda s: of(jnp.square(s))

    def share(value):
        return f"{value / most:.0%} of the {most:,} possible"

    add(
        "effective rank (RankMe)",
        rank.effective_rank_of,
        False,
        lambda v: (
            f"The singular values are as spread as {v:,.0f} equal ones, {share(v)}. "
            + (
                "Much of the width is unused: a stronger decorrelation or uniformity term, a "
                "smaller learning rate or a wider projector usually helps."
                if v < 0.25 * most
                else "Between checkpoints of one method, the higher one usually probes better."
            )
        ),
    )
    add(
        "participation ratio",
        squared(rank.participation_ratio_of),
        True,
        lambda v: (
            f"The variance is as spread as over {v:,.1f} equal directions; it looks at the "
            "large ones, where RankMe also counts the small."
        ),
    )
    add(
        "stable rank",
        squared(rank.stable_rank_of),
        False,
        lambda v: (
            f"All energy is {v:,.1f} times that of the strongest direction"
            + (", which is mostly the mean: centring helps." if v < 2 else ".")
        ),
    )
    add(
        "NESum",
        squared(rank.stable_rank_of),
        True,
        lambda v: f"The same without the mean: {v:,.1f} times the strongest principal component.",
    )
    if most >= 3:
        start, stop = (10, min(most, 100)) if most >= 20 else (1, most)
        stop = min(stop, n - 1)
        if stop - start >= 1:
            add(
                "alpha-ReQ",
                squared(lambda e: rank.alpha_req_of(e, start=start, stop=stop)),
                True,
                lambda v: (
                    f"Eigenvalues {start} to {stop} fall like k^-{v:.2f}; about 1 is scale-free, "
                    + (
                        "and this decays faster: few directions hold what there is."
                        if v > 1.2
                        else "and this is flatter: much is spread out evenly, information or noise."
                        if v < 0.8
                        else "as here."
                    )
                ),
            )
    add(
        "matrix entropy",
        squared(rank.matrix_entropy_of),
        False,
        lambda v: (
            f"{v:.2f} nats of at most {np.log(most):.2f} (eigenvalues, so less than RankMe's)."
        ),
    )
    algebraic = int(np.sum(centred > 0))
    section.add(
        "rank",
        algebraic,
        f"Directions with any variance at all, of {min(n - 1, d):,} possible"
        + ("." if algebraic == min(n - 1, d) else ": the others are exact copies or sums."),
    )
    section.plots["eigenvalues"] = np.square(centred) / n
    return section


def shape(moments: Moments, z: np.ndarray, weights: np.ndarray | None) -> Section:
    """Isotropy: does the cloud favour some directions?"""
    n, d = moments.n, len(moments.origin)
    section = Section("Isotropy", of_sample(z, n) + " Mean cosine and IsoScore are of all rows.")
    total = float(moments.unit_total @ moments.unit_total)
    present = int(np.sum(moments.norms > 0))
    cosine = (total - present) / (n * (n - 1))
    section.add(
        "mean cosine",
        cosine,
        "Two random rows point in unrelated directions."
        if abs(cosine) < 0.1
        else "Rows share a direction, so that all cosines are high; subtracting the mean, then the "
        "top components, usually helps similarity search.",
    )
    if d > 1:

        def isoscore(s):
            return isotropy.isoscore_of(rank.participation_ratio_of(jnp.square(s)), d)

        with jax.enable_x64(True):
            value = float(isoscore(moments.singular_values(center=True)))
            left_out = jax.vmap(isoscore)(moments.without_each_group(center=True))
        section.add(
            "IsoScore",
            value,
            f"The variance spreads evenly over about {value:.0%} of the dimensions"
            + ("; whitening evens it out." if value < 0.1 else "."),
            *interval(value, np.asarray(left_out)),
        )
    if len(z) > 2:
        score = jax.jit(isotropy.partition_score)(jnp.asarray(z))
        section.add(
            "partition score",
            score,
            "How alike the partition function is in all directions (1: the same); it sees the mean "
            "and the scale.",
        )
        first, second = jax.jit(isotropy.symmetry)(jnp.asarray(z))
        section.add(
            "symmetry of the mean", first, "1 where the mean is zero, 0 where all rows agree."
        )
        section.add(
            "symmetry of the spread", second, "Entropy of the variances; 1 where all are equal."
        )
        if weights is not None:
            first, second = jax.jit(isotropy.symmetry)(
                jnp.asarray(z), jnp.asarray(weights, jnp.float32)
            )
            section.add(
                "symmetry of the mean, by frequency",
                first,
                "The same with rows weighted by how often they are used; Zipfian whitening is what "
                "makes these two 1.",
            )
            section.add("symmetry of the spread, by frequency", second, "See above.")
    outliers = jax.jit(isotropy.outlier_dimensions)(jnp.asarray(z))
    variance = np.asarray(outliers.variance)
    loud = np.flatnonzero(variance >= 5)
    section.add(
        "outlier dimensions",
        len(loud),
        "No dimension has five times the average variance."
        if not len(loud)
        else f"Dimensions with at least five times the average variance (first: {loud[0]}, "
        f"{variance[loud[0]]:.0f} times); they dominate distances. Standardise or whiten.",
    )
    share = np.asarray(outliers.cosine)
    if cosine > 0.1 and np.isfinite(share).all():
        top = int(np.argmax(share))
        section.add(
            "largest share of the mean cosine",
            share[top] / share.sum(),
            f"What dimension {top} alone adds to the cosine of two random rows.",
        )
    section.add(
        "coherence",
        jax.jit(rank.coherence)(jnp.asarray(z)),
        "How many times its fair share of the span the most particular row accounts for; 1 where "
        "all rows count alike. A large value is one row that holds a direction by itself.",
    )
    section.plots["variance by dimension"] = variance
    section.plots["cosines"] = cosines_of_others(z, z)
    return section


def intrinsic_dimension(z: np.ndarray, n: int, key: Any) -> Section:
    """How many coordinates the rows need locally."""
    section = Section("Intrinsic dimension", of_sample(z, n) + " Intervals: 95 %, bootstrap.")
    if len(z) < 10:
        section.note = "Not measured: it takes ten rows."
        return section
    points = jnp.asarray(z)
    found = jax.jit(dimension.two_nn)(key, points)
    reading = "High estimates are too low in general; compare at equal numbers of rows."
    section.add(
        "TwoNN",
        found.value,
        f"Neighbourhoods of two look {float(found.value):.1f}-dimensional, of {z.shape[1]:,}. "
        + reading,
        found.low,
        found.high,
    )
    k = min(20, len(z) // 2)
    found_mle = jax.jit(lambda key, z: dimension.mle(key, z, k=k))(key, points)
    section.add(
        f"maximum likelihood, {k} neighbours",
        found_mle.value,
        "Larger neighbourhoods; a lower value than TwoNN's speaks of noise or curvature.",
        found_mle.low,
        found_mle.high,
    )
    learnability, _ = jax.jit(rank.clid)(key, points)
    section.add(
        "cluster learnability (CLID)",
        learnability,
        "Share of rows whose k-means cluster their nearest earlier row tells. Among models, those "
        "high in this and in dimension tend to probe best.",
    )
    if int(found.dropped):
        section.add(
            "duplicate rows",
            int(found.dropped),
            "Rows of the sample that equal an earlier one; estimates are of the distinct ones.",
        )
    scales = tuple(s for s in (1, 2, 4, 8, 16, 32, 64) if 4 * s < len(z) - int(found.dropped))
    if scales:
        gride = jax.jit(lambda key, z: dimension.gride(key, z, scales=scales))(key, points)
        section.plots["dimension by scale"] = {
            "scale": np.array(scales),
            "value": np.asarray(gride.value),
            "low": np.asarray(gride.low),
            "high": np.asarray(gride.high),
        }
    return section


def hubs(z: np.ndarray, n: int) -> Section:
    """Does similarity search keep finding the same rows?"""
    k = min(NEIGHBORS, len(z) - 1)
    section = Section("Neighbours", of_sample(z, n) + f" {k} neighbours by cosine, exact.")

    @jax.jit
    def count(z):
        found = neighbors.knn(z, k=k, distance=neighbors.cosine_distance)
        occurrence = neighbors.k_occurrence(found.indices, points=z.shape[0])
        return occurrence, neighbors.hubness(occurrence)

    occurrence, hubness = count(jnp.asarray(z))
    section.add(
        "hubness (skewness)",
        hubness.skewness,
        "No hubs to speak of."
        if hubness.skewness < 1
        else "Some rows are neighbours of very many: centring, CSLS, local scaling or mutual "
        "proximity usually helps.",
    )
    section.add(
        "Robin Hood index",
        hubness.robin_hood,
        "Share of neighbour places that would have to move for all rows to have equally many.",
    )
    section.add(
        "antihubs",
        hubness.antihubs,
        f"Share of rows that are among nobody's {k} nearest: search never finds them.",
    )
    section.plots["occurrence"] = np.asarray(occurrence)
    return section


def bounds(moments: Moments, classes: int | None) -> Section:
    """What cannot be otherwise, given how many rows and dimensions there are."""
    n, d = moments.n, len(moments.origin)
    section = Section(
        "Bounds that apply", "From the shape alone; no embedding of this shape does better."
    )
    section.add(
        "largest possible rank",
        min(n - 1, d),
        f"Centred rows span at most min(n - 1, d) dimensions, n = {n:,}, d = {d:,}.",
    )
    section.add(
        "least mean cosine",
        -1 / (n - 1),
        "The mean cosine of n rows is at least -1/(n - 1), reached where unit rows sum to zero.",
    )
    if n > d:
        section.add(
            "least coherence (Welch)",
            np.sqrt((n - d) / (d * (n - 1))),
            "Some two of the rows have at least this absolute cosine.",
        )
    section.add(
        "uniformity of the sphere",
        least_uniformity(d),
        "What points drawn uniformly from the sphere come to.",
    )
    if classes is not None:
        section.add(
            "dimensions for all classes alike",
            classes - 1,
            f"{classes} class means equally far from one another need one dimension less than that"
            + ("." if d >= classes - 1 else ", which this file does not have."),
        )
    return section
