"""What is measured of a set of embeddings, each number with one sentence on what it says.

A section is what belongs together: its findings, and the data of its plots. Quantities of the
spectrum and of single rows are those of the whole file; whatever compares rows with one another is
that of a sample, whose size the section's note states.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.special

from rlkit.losses.alignment import alignment, cross_uniformity, uniformity
from rlkit.metrics import dimension, geometry, isotropy, neighbors, probes, rank, retrieval
from rlkit.metrics import similarity as similarities
from rlkit.numerics import safe_normalize
from rlkit.profile.moments import Moments, interval

NEIGHBORS = 10


class Finding(NamedTuple):
    """A number, its interval where there is one, and a sentence."""

    name: str
    value: float
    says: str
    low: float = np.nan
    high: float = np.nan


@dataclasses.dataclass
class Section:
    """Findings that belong together, and named arrays that the plots are drawn from."""

    title: str
    note: str = ""
    findings: list[Finding] = dataclasses.field(default_factory=list)
    plots: dict[str, Any] = dataclasses.field(default_factory=dict)

    def add(self, name: str, value: Any, says: str, low: Any = np.nan, high: Any = np.nan) -> None:
        """One more finding."""
        self.findings.append(Finding(name, float(value), says, float(low), float(high)))


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
    section = Section("Isotropy", _of_sample(z, n) + " Mean cosine and IsoScore are of all rows.")
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
            return (rank.participation_ratio_of(jnp.square(s)) - 1) / (d - 1)

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
    section.plots["variance by dimension"] = variance
    section.plots["cosines"] = _cosines_of_pairs(z)
    return section


def intrinsic_dimension(z: np.ndarray, n: int, key: Any) -> Section:
    """How many coordinates the rows need locally."""
    section = Section("Intrinsic dimension", _of_sample(z, n) + " Intervals: 95 %, bootstrap.")
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
    section = Section("Neighbours", _of_sample(z, n) + f" {k} neighbours by cosine, exact.")

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


def pairs(x: np.ndarray, y: np.ndarray, n: int, key: Any) -> Section:
    """Two views or modalities, row i of one paired with row i of the other."""
    section = Section("Pairs", _of_sample(x, n) + " Rows are normalised first.")

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
    best = uniform_on_sphere(x.shape[1])
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
    others = np.sum(_unit(x) * np.roll(_unit(y), 1, axis=0), axis=1)
    section.plots["pair cosines"] = {"partners": found["cosines"], "others": others}
    return section


def classes(z: np.ndarray, y: np.ndarray, names: list[str], n: int, seed: int) -> Section:
    """Probes: how much of the labels simple rules read off."""
    train, test = split(y, seed)
    most = np.bincount(y[test]).max() / len(test)
    section = Section(
        "Labels",
        _of_sample(z, n)
        + f" Probes are fitted to {len(train):,} rows and tested on {len(test):,}; "
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
    section = Section("Truncation", _of_sample(z, n) + f" Kept: {what}.")
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
    section.plots["truncation"] = {"sizes": np.array(sizes), "what": what, **curves}
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


def comparison(x: np.ndarray, y: np.ndarray, n: int) -> Section:
    """Two representations of the same rows."""
    section = Section(
        "Compared with the second file", _of_sample(x, n) + " Row i of both files is one example."
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
        uniform_on_sphere(d),
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


def split(y: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Half of the rows of every class for fitting, the rest for testing; ascending."""
    order = np.random.default_rng(seed).permutation(len(y))
    place = np.empty(len(y), int)
    ranked = order[np.argsort(y[order], kind="stable")]
    start = np.searchsorted(y[ranked], y[ranked])
    place[ranked] = np.arange(len(y)) - start
    return np.flatnonzero(place % 2 == 0), np.flatnonzero(place % 2 == 1)


def uniform_on_sphere(d: int) -> float:
    r"""`uniformity` of the uniform distribution, $\log[e^{-4}\, {}_0F_1(; d/2; 4)]$."""
    return float(-4 + np.log(scipy.special.hyp0f1(d / 2, 4.0)))


def _cosines_of_pairs(z: np.ndarray) -> np.ndarray:
    """Cosines of each row with another one."""
    unit = _unit(z)
    return np.sum(unit * np.roll(unit, 1, axis=0), axis=1)


def _unit(z: np.ndarray) -> np.ndarray:
    return np.asarray(safe_normalize(jnp.asarray(z, jnp.float32)))


def _of_sample(z: np.ndarray, n: int) -> str:
    return f"All {n:,} rows." if len(z) == n else f"{len(z):,} of {n:,} rows, drawn at random."
