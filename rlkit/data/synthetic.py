import jax
import jax.numpy as jnp


def gaussian_pairs(key, n, spectrum, *, noise=0.3):
    m = len(spectrum)
    q, _ = jnp.linalg.qr(jax.random.normal(key, (n, 3 * m), spectrum.dtype))
    q = q * n**0.5
    s = q[:, :m] * jnp.sqrt(spectrum)
    return s + noise * q[:, m : 2 * m], s + noise * q[:, 2 * m :]
