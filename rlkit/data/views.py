import jax
import jax.numpy as jnp


def crop(shift):
    def view(key, im):
        n, h, w, c = im.shape
        p = jnp.pad(im, ((0, 0), (shift, shift), (shift, shift), (0, 0)))
        o = jax.random.randint(key, (n, 2), 0, 2 * shift + 1)
        return jax.vmap(lambda a, b: jax.lax.dynamic_slice(a, (b[0], b[1], 0), (h, w, c)))(p, o)

    return view


def parse(spec):
    return crop(int(spec.split(":")[1]))


def positive_pair(key, im, view):
    a, b = jax.random.split(key)
    return view(a, im), view(b, im)


def flatten(x):
    return x.reshape(x.shape[0], -1)
