"""The networks that are compared: their losses, and the uncertainties that are read from them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from experiments._uncertainty_config import METHODS, Config, classes_of, methods_of, networks_of
from rlkit.losses import probabilistic
from rlkit.metrics import neighbors
from rlkit.models import encoders, heads
from rlkit.numerics import safe_normalize

DISTRIBUTIONS = ("elk", "hib", "mc_info_nce")
"""Networks whose embeddings are von Mises-Fisher distributions."""


@dataclasses.dataclass(frozen=True)
class Models:
    """The networks of one configuration, all of one size; the ensemble is several of them."""

    config: Config
    trunk: encoders.MLP
    embedding: encoders.MLP
    distribution: heads.VonMisesFisher
    risk: heads.LossPrediction

    @staticmethod
    def of(config: Config) -> "Models":
        """The networks of the flags."""
        return Models(
            config,
            encoders.MLP(config.width, widths=(config.width,)),
            encoders.MLP(config.dim, widths=()),
            heads.VonMisesFisher(config.dim, config.concentration),
            heads.LossPrediction((config.width,)),
        )

    def init(self, key, x) -> dict[str, Any]:
        """Weights by network, for inputs like x."""
        params = {}
        for i, name in enumerate(self.networks):
            own = jax.random.fold_in(key, i)
            if name == "ensemble":
                keys = jax.random.split(own, self.config.members)
                params[name] = jax.vmap(lambda k: self._init("plain", k, x))(keys)
            else:
                params[name] = self._init(name, own, x)
        return params

    @property
    def networks(self) -> tuple[str, ...]:
        """Those that are trained: the plain one is the ensemble's first, where there is one."""
        wanted = networks_of(self.config)
        return tuple(n for n in wanted if n != "plain" or "ensemble" not in wanted)

    def _init(self, name: str, key, x) -> dict[str, Any]:
        of_trunk, of_head, of_classes, of_risk = jax.random.split(key, 4)
        features = jnp.zeros((1, self.config.width))
        params = {"trunk": self.trunk.init(of_trunk, x)}
        head = self.distribution if name in DISTRIBUTIONS else self.embedding
        params["head"] = head.init(of_head, features)
        if name not in ("hib", "mc_info_nce"):
            normal = jax.random.normal(of_classes, (len(classes_of(self.config)), self.config.dim))
            params["classes"] = normal / jnp.sqrt(self.config.dim)
        if name == "loss_prediction":
            params["risk"] = self.risk.init(of_risk, jnp.zeros((1, self.config.dim)))
        if name == "hib":  # logits of a cosine from -1 to 1 start from -5 to 5
            params["match"] = jnp.array([jnp.log(5.0), 0.0])
        return params

    # --- what a network says of inputs -----------------------------------------------------------

    def features(self, params, x):
        """[n width]."""
        return encoders.relu(self.trunk.apply(params["trunk"], x))

    def embed(self, params, x):
        """Points [n d]."""
        return self.embedding.apply(params["head"], self.features(params, x))

    def logits(self, params, z):
        """Of classes [n c]."""
        return z @ params["classes"].T

    def vmf(self, params, x):
        """Mean directions [n d] and concentrations [n]."""
        return self.distribution.apply(params["head"], self.features(params, x))

    def dropped(self, params, x, key):
        """Logits [n c] where random features, and coordinates of the embedding, are 0."""
        first, second = jax.random.split(key)
        features = self._drop(first, self.features(params, x))
        z = self._drop(second, self.embedding.apply(params["head"], features))
        return self.logits(params, z)

    def _drop(self, key, x):
        kept = jax.random.bernoulli(key, 1 - self.config.dropout, x.shape)
        return jnp.where(kept, x / (1 - self.config.dropout), 0)

    # --- losses ----------------------------------------------------------------------------------

    def loss(self, name: str, params, batch):
        """The mean of one network's loss on a batch."""
        x, label, key = batch
        c = self.config
        if name == "ensemble":  # the same batches; the members' starts differ
            member = jax.vmap(lambda params: self.loss("plain", params, batch))
            return jnp.sum(member(params))
        if name == "plain":
            return jnp.mean(_cross_entropy(self.logits(params, self.embed(params, x)), label))
        if name == "dropout":
            return jnp.mean(_cross_entropy(self.dropped(params, x, key), label))
        if name == "loss_prediction":
            z = self.embed(params, x)
            true = _cross_entropy(self.logits(params, z), label)
            guess = self.risk.apply(params["risk"], z)
            error = probabilistic.loss_prediction(guess, true)
            return jnp.mean(true) + c.risk_weight * jnp.mean(error)
        direction, concentration = self.vmf(params, x)
        if name == "elk":
            return jnp.mean(_cross_entropy(self._overlaps(params, direction, concentration), label))
        samples = probabilistic.vmf_sample(key, direction, concentration, samples=c.samples)
        first, second = jnp.split(samples, 2, axis=1)
        own, _ = jnp.split(label, 2)
        if name == "mc_info_nce":
            temperature = 1 / c.inverse_temperature
            found = probabilistic.mc_info_nce(first, second, temperature=temperature, ids=own)
            return jnp.mean(found)
        # Each with its partner, and with the partner of the one before: mostly another class.
        other = jnp.concatenate([second, jnp.roll(second, 1, axis=1)], axis=1)
        matches = jnp.concatenate([jnp.ones_like(own, bool), own == jnp.roll(own, 1)])
        found = probabilistic.hib(
            jnp.tile(first, (1, 2, 1)),
            other,
            matches,
            jnp.zeros(matches.shape),
            scale=jnp.exp(params["match"][0]),
            offset=params["match"][1],
            beta=0.0,
            estimator="log_mean",
            similarity="inner",
        )
        return jnp.mean(found)

    def _overlaps(self, params, direction, concentration):
        w = params["classes"]
        length = jnp.sqrt(jnp.sum(jnp.square(w), axis=1))
        return probabilistic.expected_likelihood(
            direction,
            concentration,
            safe_normalize(w),
            self.config.inverse_temperature * jnp.maximum(length, 1.0),
        )

    # --- embeddings and uncertainties ------------------------------------------------------------

    def read(self, params, x, key) -> tuple[dict[str, Any], dict[str, Any]]:
        """Embeddings [n d] by network, of unit length, and uncertainties [n] by method.

        The ensemble's embedding is its members' side by side, so that its cosine is the mean of
        theirs. Dropout embeds without dropping.
        """
        z, u = {}, {}
        for name in self.networks:
            of = params[name]
            if name in DISTRIBUTIONS:
                z[name], concentration = self.vmf(of, x)
                u[name] = 1 / concentration
            elif name == "ensemble":
                each = jax.vmap(lambda of: self.embed(of, x))(of)
                logits = jax.vmap(self.logits)(of, each)
                u[name] = disagreement(logits)
                z["plain"], plain = each[0], logits[0]
                z[name] = jnp.concatenate(list(safe_normalize(each)), axis=1)
            else:
                z[name] = self.embed(of, x)
                if name == "dropout":
                    keys = jax.random.split(key, self.config.samples)
                    u[name] = disagreement(jax.vmap(lambda k, of=of: self.dropped(of, x, k))(keys))
                elif name == "loss_prediction":
                    u[name] = self.risk.apply(of["risk"], z[name])
                else:
                    plain = self.logits(of, z[name])
        if "plain" in z:
            u["entropy"] = entropy(jax.nn.log_softmax(plain, axis=1))
            u["norm"] = -jnp.sqrt(jnp.sum(jnp.square(z["plain"]), axis=1))
        return {k: safe_normalize(v) for k, v in z.items()}, u


def _cross_entropy(logits, label):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits, axis=1), label[:, None], axis=1)[:, 0]


def entropy(log_p):
    """In nats, of the last axis."""
    return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


def disagreement(logits):
    """Jensen-Shannon divergence [n] of the predictions [k n c]: mutual information, in nats."""
    log_p = jax.nn.log_softmax(logits, axis=-1)
    mean = jax.nn.logsumexp(log_p, axis=0) - jnp.log(log_p.shape[0])
    return entropy(mean) - jnp.mean(entropy(log_p), axis=0)


def look(models: Models, tests, state) -> dict:
    """One probe of one run: uncertainties [m n] and whether neighbours are wrong [w n], by test."""
    config, seen = models.config, {}
    for name, (x, labels) in tests.items():
        z, u = models.read(state.params, x, jax.random.key(0))
        networks = networks_of(config)
        widest = max(z[network].shape[1] for network in networks)
        # Zeros beside it change no cosine: all are searched by one compiled loop.
        padded = [jnp.pad(z[n], ((0, 0), (0, widest - z[n].shape[1]))) for n in networks]

        def wrong(z, labels=labels):
            nearest = neighbors.knn(z, k=1, distance=neighbors.cosine_distance, block_size=1024)
            return labels[nearest.indices[:, 0]] != labels

        seen[f"wrong/{name}"] = jax.lax.map(wrong, jnp.stack(padded))
        seen[f"uncertainty/{name}"] = jnp.stack([u[method] for method in methods_of(config)])
    return seen


def network_rows(config: Config) -> list[int]:
    """For each method the row of its network in `wrong`."""
    networks = networks_of(config)
    return [networks.index(METHODS[method]) for method in methods_of(config)]
