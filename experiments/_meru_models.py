"""An image tower and a text tower that meet on the sphere (CLIP) or the hyperboloid (MERU)."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from rlkit.data import scenes
from rlkit.losses import contrastive, hyperbolic
from rlkit.manifolds import Lorentz
from rlkit.metrics.neighbors import cosine_distance
from rlkit.models import encoders, text
from rlkit.numerics import safe_normalize

SCALE, LARGEST_SCALE = 1 / 0.07, 100.0
CURVATURES = (0.1, 10.0)
"""Of c = -K."""


@dataclasses.dataclass(frozen=True)
class Model:
    """Encoders, and the geometry in which their outputs are compared."""

    kind: str
    dim: int
    image: encoders.Conv
    text: text.TokenBag
    entailment: float = 0.2
    min_radius: float = 0.1

    @staticmethod
    def of(kind: str, dim: int, *, width: int, entailment: float, min_radius: float) -> "Model":
        """The model of the flags."""
        return Model(
            kind,
            dim,
            encoders.Conv(dim, channels=(max(width // 2, 1), width)),
            text.TokenBag(dim, vocabulary=len(scenes.VOCABULARY), width=2 * width),
            entailment,
            min_radius,
        )

    def init(self, key, images, tokens):
        """Weights of the encoders, which do not depend on the kind."""
        first, second = jax.random.split(key)
        return {"image": self.image.init(first, images), "text": self.text.init(second, tokens)}

    def scalars(self):
        """What the geometry learns, as it starts in the papers."""
        scalars = {"log_scale": jnp.array(math.log(SCALE))}
        if self.kind == "meru":
            alpha = jnp.array(-math.log(self.dim) / 2)
            scalars |= {"log_c": jnp.zeros(()), "log_alpha_image": alpha, "log_alpha_text": alpha}
        return scalars

    def clamped(self, params):
        """Scalars within the paper's limits, as after each step of the released code."""
        limits = {
            "log_scale": (-math.inf, math.log(LARGEST_SCALE)),
            "log_c": tuple(math.log(c) for c in CURVATURES),
            "log_alpha_image": (-math.inf, 0.0),
            "log_alpha_text": (-math.inf, 0.0),
        }
        scalars = {k: jnp.clip(v, *limits[k]) for k, v in params["scalars"].items()}
        return params | {"scalars": scalars}

    def outputs(self, params, x, tower):
        """[n d] of one tower, before the geometry: tangent vectors at the root for MERU."""
        out = getattr(self, tower).apply(params[tower], x)
        if self.kind == "meru":
            out = out * jnp.exp(params["scalars"][f"log_alpha_{tower}"])
        return out

    def points(self, params, outputs):
        """[n d] unit vectors (CLIP), or space components of points (MERU)."""
        if self.kind == "clip":
            return safe_normalize(outputs)
        return self.manifold(params).lift(outputs)[..., 1:]

    def embed(self, params, x, tower):
        """[n d], the points of images or of captions."""
        return self.points(params, self.outputs(params, x, tower))

    def manifold(self, params) -> Lorentz:
        """The hyperboloid, with the curvature that was learned."""
        return Lorentz(-jnp.exp(params["scalars"]["log_c"]))

    def distances(self, params):
        """A function of [n d] and [m d] to [n m]: what neighbours are found by."""
        if self.kind == "clip":
            return cosine_distance
        manifold = self.manifold(params)
        return lambda x, y: manifold.dist_of_space(x[:, None, :], y[None, :, :])

    def losses(self, params, images, captions):
        """Contrast and entailment, the mean of each, of pairs of points."""
        temperature = jnp.exp(-params["scalars"]["log_scale"])
        if self.kind == "clip":
            contrast = contrastive.clip(images, captions, temperature=temperature)
            return jnp.mean(contrast), jnp.zeros(())
        curvature = self.manifold(params).curvature
        contrast = hyperbolic.lorentz_contrastive(
            images, captions, curvature=curvature, temperature=temperature
        )
        outside = hyperbolic.entailment_cone(
            captions, images, curvature=curvature, min_radius=self.min_radius
        )
        return jnp.mean(contrast), jnp.mean(outside)

    def objective(self, params, batch):
        """What training minimises, of images and the tokens of their captions."""
        images, tokens = batch
        points = (self.embed(params, x, t) for x, t in ((images, "image"), (tokens, "text")))
        contrast, outside = self.losses(params, *points)
        return contrast + self.entailment * outside

    def root(self, params, points):
        """[d]: the origin (MERU), or the direction of the mean of all these points (CLIP)."""
        return jnp.zeros(self.dim) if self.kind == "meru" else safe_normalize(points.mean(axis=0))

    def to_root(self, params, points, root, shares):
        """[n k d]: each point moved towards the root by shares [k], 0 to 1.

        Along the geodesic, or for CLIP along the chord and back onto the sphere.
        """
        points, root, left = points[:, None, :], root[None, None, :], 1 - shares[None, :, None]
        if self.kind == "clip":
            return safe_normalize(root + left * (points - root))
        manifold = self.manifold(params)
        tangents = manifold.log0(manifold.from_space(points))[..., 1:]
        return manifold.lift(left * tangents)[..., 1:]
