"""Is a finite difference of gradients the curvature? Only of smooth networks.

  python studies/hvp_exact_fd.py

Untrained CNNs on 32 test images of digits; the direction is that of CURE, the
sign of the loss gradient; `objectives.input_derivatives.products` both. Writes
hvp_exact_fd.png beside this file and prints the numbers.
"""

import pathlib

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np

from implicit_attr import data, losses, models, train
from implicit_attr.objectives import input_derivatives

matplotlib.use('Agg')
from matplotlib import pyplot as plt

DOCS = pathlib.Path(__file__).parent.parent / 'docs'

STEPS = np.geomspace(1e-3, 3, 15)
"""Lengths ‖h z‖₂ in pixel units."""

NETWORKS = {
  'softplus, β = 10, average pooling': ('softplus', 10.0, 'avg_pool'),
  'softplus, β = 50, average pooling': ('softplus', 50.0, 'avg_pool'),
  'ReLU, average pooling': ('relu', 1.0, 'avg_pool'),
  'ReLU, strides': ('relu', 1.0, 'stride'),
}
COLOURS = ('#0072B2', '#56B4E9', '#D55E00', '#E69F00')


def main() -> None:
  loss = losses.make('cross_entropy')
  batch = data.load('digits', 'test', batch_size=1).examples(range(32))
  x, y = jnp.asarray(batch['image']), jnp.asarray(batch['label'])
  figure, axis = plt.subplots(figsize=(6, 3.6), layout='constrained')
  for (name, options), colour in zip(NETWORKS.items(), COLOURS, strict=True):
    activation, beta, downsample = options
    module = models.build(
      'cnn', width=16, depth=2, hidden=64, activation=activation, beta=beta,
      downsample=downsample,
    )  # fmt: skip
    params = jax.jit(module.init)(jax.random.key(0), x[:1])['params']
    # The logits of a fresh network are almost constant in x.
    params['logits']['kernel'] = params['logits']['kernel'] * 100
    # With biases of 0 black pixels would sit on the kinks of ReLU themselves.
    for i, layer in enumerate(sorted(params)):
      noise = jax.random.normal(jax.random.key(i), params[layer]['bias'].shape)
      params[layer]['bias'] = 0.1 * noise
    apply_fn = train.frozen(module, {})

    @jax.jit
    def ratio(params, h, x, apply_fn=apply_fn):
      """Mean ‖H z‖ by differences of step h, and by differentiation."""
      fun, found = input_derivatives.field(apply_fn, loss, params, y), []
      for hvp in ('fd', 'exact'):
        grad, product, _ = input_derivatives.products(fun, x, hvp=hvp, h=h)
        found.append(
          jnp.mean(
            input_derivatives.length(
              product(input_derivatives.unit(jnp.sign(grad)))
            )
          )
        )
      return found[0] / found[1]

    with jax.enable_x64(True):
      params = jax.tree.map(lambda a: a.astype(float), params)
      ratios = [float(ratio(params, h, x.astype(float))) for h in STEPS]
    print(
      name, *(f'{h:.3g}: {r:.3g}' for h, r in zip(STEPS, ratios, strict=True))
    )
    axis.loglog(STEPS, ratios, 'o-', color=colour, markersize=3, label=name)
  axis.axhline(1, color='0.5', linestyle=':', linewidth=1)
  axis.axvline(8 / 255 * 8, color='0.5', linestyle=':', linewidth=1)
  axis.text(
    8 / 255 * 8, axis.get_ylim()[0], ' a corner of ε = 8/255', fontsize=8
  )
  axis.set(
    xlabel='step h [pixel units, ℓ2]', ylabel='‖finite difference‖ / ‖H z‖'
  )
  axis.spines[['top', 'right']].set_visible(False)
  axis.legend(frameon=False, fontsize=8)
  figure.savefig(DOCS / f'{pathlib.Path(__file__).stem}.png', dpi=120)


if __name__ == '__main__':
  main()
