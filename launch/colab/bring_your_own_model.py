# %% [markdown]
# # Your network, your data, the same measurements
#
# Nothing but `models` knows a framework. Everything else takes a pure function
# `apply_fn(params, x) -> (logits, out)`; `out` may be `{}`. Here it is written
# in plain JAX; the README does the same with flax linen, flax nnx and equinox.

# %%
import jax
import jax.numpy as jnp
import numpy as np
import optax
from matplotlib import pyplot as plt
from PIL import Image

from implicit_attr import curvature, data
from implicit_attr.audit import audit

SMALL = False

# %% [markdown]
# ## Data and a network
#
# Images are float arrays [N, H, W, C] from 0 to 1, labels integers. Put your
# own here.

# %%
source = data.load('digits', 'test', batch_size=32 if SMALL else 128)
test = source.examples(np.arange(source.batch_size))
images, labels = test['image'], test['label']
training = data.load('digits', 'train', batch_size=64)


def apply_fn(params, x, activation=jnp.tanh):
  hidden = x.reshape(len(x), -1) @ params['w1'] + params['b1']
  return activation(hidden) @ params['w2'] + params['b2'], {}


keys = jax.random.split(jax.random.key(0))
params = {
  'w1': jax.random.normal(keys[0], (64, 64)) / 8,
  'b1': jnp.zeros((1, 64)),
  'w2': jax.random.normal(keys[1], (64, 10)) / 8,
  'b2': jnp.zeros((1, 10)),
}

# %% [markdown]
# ## Any training loop

# %%
LR = 0.3


def loss_fn(params, batch):
  logits, _ = apply_fn(params, batch['image'])
  return optax.softmax_cross_entropy_with_integer_labels(
    logits, batch['label']
  ).mean()


@jax.jit
def update(params, batch):
  loss, grads = jax.value_and_grad(loss_fn)(params, batch)
  return jax.tree.map(lambda p, g: p - LR * g, params, grads), loss


for step in range(50 if SMALL else 2000):
  batch = training.batch_at(step)
  params, loss = update(
    params, {name: batch[name] for name in ('image', 'label')}
  )
right = jnp.argmax(apply_fn(params, images)[0], -1) == labels
print(f'training loss {loss:.3f}, test accuracy {right.mean():.3f}')

# %% [markdown]
# ## How robust are its maps?
#
# `audit` attacks the maps of the images that are labelled rightly, and puts
# random signs of the same size beside each number.

# %%
found = audit(
  apply_fn,
  params,
  images,
  labels,
  eps=0.03,
  attributions=('gradient',) if SMALL else ('gradient', 'gradient_x_input'),
  steps=3 if SMALL else 50,
  restarts=1 if SMALL else 3,
)
print(found)

# %%
pictures = found.draw('pictures')
Image.open(pictures[0])

# %% [markdown]
# ## How curved is its loss?
#
# The largest eigenvalues with residual bounds (an eigenvalue lies that close),
# and the density of all of them.

# %%
whole = training.examples(np.arange(len(training)))
mvp = curvature.linearize_hvp(
  lambda p: loss_fn(p, {n: whole[n] for n in ('image', 'label')}), params
)
start = curvature.rademacher(jax.random.key(1), params)
values, _, residuals = curvature.top_eigenpairs(mvp, start, k=3, order=30)
print('largest eigenvalues', values, 'known to', residuals)
grid, density = curvature.density(
  mvp, params, jax.random.key(2), order=20, draws=4
)
plt.semilogy(grid, np.maximum(density, 1e-6 * density.max()))
plt.xlabel('eigenvalue of the Hessian of the loss')
plt.ylabel('share of eigenvalues per unit')
plt.show()

# %% [markdown]
# ## Your turn
#
# Replace `jnp.tanh` by `jax.nn.relu` in `apply_fn` and run all again. A ReLU
# network has no second derivative, so an attack on its gradients has nothing to
# follow; `audit` counts such images as stalled and warns. Then give it the
# same parameters under softplus to follow:

# %%
softplus = lambda beta: lambda z: jax.nn.softplus(beta * z) / beta
smooth_fn = lambda p, x, beta: apply_fn(p, x, activation=softplus(beta))
print(
  'pass smooth_fn=smooth_fn to audit:', smooth_fn(params, images, 10.0)[0][0]
)
