"""Six claims of arXiv 2605.29983 as data, and what would count against each.

The six claims are those of the abstract of arXiv 2605.29983, in our words; the
tests are ours, since its protocol is not public. They were fixed before the
runs, and a verdict can come out against each of them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

FACTORS = {'lr': 1, 'batch_size': -1}
"""What is varied, and which way the claim says that it helps: up or down."""

SEEDS = 3
"""Fewer seeds than this decide nothing."""

RUNS = 12
"""Fewer runs than this give no correlation."""

SETTINGS = (
  'data', 'model', 'attention', 'activation', 'loss', 'objective', 'momentum',
  'weight_decay', 'label_noise', 'other', 'protocol', 'lr', 'batch_size',
)  # fmt: skip
"""Fields that say what was run; arms differ in one of them and in no other."""

CELL = ('factor', 'rule', 'target', 'data', 'model', 'activation', 'loss')
"""A claim is judged for every combination of these apart, then as a whole."""

Where = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Claim:
  """One claim as data.

  Attributes:
    name: C1 … C6.
    hypothesis: what the paper says, in our words, and how it is read here.
    quantity: the field of a record that is compared; larger is better.
    test: 'gain': the gain must be of interest; 'no_loss': the loss must not
      be; 'chain': every link of `links` must hold.
    smallest: the effect size of interest, in units of `quantity` (a
      correlation for 'chain').
    rule: the rule of comparison of the primary endpoint, which alone decides;
      None: every rule does.
    secondary: quantity -> size of interest of endpoints that are shown beside
      the primary one and decide nothing, at any rule.
    plus: which records the gain is taken of; a gain is `quantity` at the end
      of the factor that should help minus that at the other end, same seed,
      same examples, same everything else.
    minus: if given, the gain of these records is taken off.
    cells: fields besides `CELL` that make separate cells.
    each: a field of `plus` alone; every value is a cell of its own.
    links: (cause, effect, sign) of each link of a chain. A cause that is a
      factor is judged between settings, the other factor held fixed; any
      other one within settings.
  """

  name: str
  hypothesis: str
  quantity: str
  test: str
  smallest: float
  plus: Where = dataclasses.field(default_factory=dict)
  rule: str | None = None
  secondary: Mapping[str, float] = dataclasses.field(default_factory=dict)
  minus: Where | None = None
  cells: tuple[str, ...] = ()
  each: str | None = None
  links: tuple[tuple[str, str, int], ...] = ()

  @property
  def decision(self) -> str:
    """The decision rule, in one sentence."""
    size = f'{self.smallest:.2g}'
    held = 'and the false discovery rate of the claim is held to 5 %'
    return {
      'gain': f'supported if the estimate is at least {size}, the 95 % '
      f'interval is above 0 {held}; reversed if the same holds of -{size} and '
      f'below 0; of no effect of interest if the interval lies inside '
      f'±{size}; else undecided',
      'no_loss': f'supported if the 95 % interval is above -{size} {held}; '
      f'reversed if the estimate is at most -{size} and the interval below 0, '
      f'held likewise; else undecided (no effect of interest is support)',
      'chain': f'supported if every correlation is at least {size} in its '
      f'direction with a 95 % interval beyond 0 {held}; reversed if one is as '
      f'large the other way; of no effect of interest if the interval of one '
      f'lies inside ±{size}; else undecided',
    }[self.test]


PLAIN = {'objective': 'none'}
GRADIENT = PLAIN | {'family': 'gradient'}
ATTENTION = PLAIN | {'family': 'attention'}
EQUAL_LOSS = 'train_loss'

CLAIMS: dict[str, Claim] = {
  claim.name: claim
  for claim in (
    Claim(
      name='C1',
      hypothesis='Plain SGD makes gradient maps robust by itself: a larger '
      'learning rate or a smaller batch leaves half of the top-k set under '
      'attack up to a larger radius.',
      quantity='log2_eps50',
      test='gain',
      smallest=0.15,
      rule=EQUAL_LOSS,
      secondary={'topk': 0.03},
      plus=GRADIENT,
      cells=('attention', 'map'),
    ),
    Claim(
      name='C2',
      hypothesis='The reason is curvature: the step size lowers curvature in '
      'the parameters, that goes with curvature in the input, and that with '
      'robustness.',
      quantity='log2_eps50',
      test='chain',
      smallest=0.2,
      rule=EQUAL_LOSS,
      secondary={'topk': 0.2},
      plus=GRADIENT,
      cells=(
        *('attention', 'map', 'attack'),
        *('momentum', 'weight_decay', 'label_noise'),
      ),
      links=(
        ('lr', 'train_lambda_max', -1),
        ('train_lambda_max', 'input_lambda', 1),
        ('normalized_curvature', 'log2_eps50', -1),
      ),
    ),
    Claim(
      name='C3',
      hypothesis='It costs next to nothing: the arm that should be robust '
      'takes no more than a tenth longer to reach its checkpoint. (That it '
      'holds across networks, data and maps is what the cells of C1 say.)',
      quantity='speed',
      test='no_loss',
      smallest=0.1,
      rule=EQUAL_LOSS,
      plus=PLAIN,
      cells=('attention',),
    ),
    Claim(
      name='C4',
      hypothesis='Under softmax the gain of gradient maps does not carry over '
      'to attention maps: the difference of the two gains is of interest.',
      quantity='log2_eps50',
      test='gain',
      smallest=0.15,
      rule=EQUAL_LOSS,
      secondary={'topk': 0.03},
      plus=GRADIENT | {'attention': 'softmax'},
      minus=ATTENTION | {'attention': 'softmax'},
    ),
    Claim(
      name='C5',
      hypothesis='Kernels in place of the softmax bring the gain back: '
      'attention maps gain more than under softmax.',
      quantity='log2_eps50',
      test='gain',
      smallest=0.15,
      rule=EQUAL_LOSS,
      secondary={'topk': 0.03},
      plus=ATTENTION | {'kernel': True},
      minus=ATTENTION | {'attention': 'softmax'},
      cells=('map',),
      each='attention',
    ),
    Claim(
      name='C6',
      hypothesis='The limit is the normalisation: with the same features, '
      'attention maps gain more without dividing by the row sum than with it.',
      quantity='log2_eps50',
      test='gain',
      smallest=0.15,
      rule=EQUAL_LOSS,
      secondary={'topk': 0.03},
      plus=ATTENTION | {'normalized': False},
      minus=ATTENTION | {'normalized': True},
      cells=('map', 'features'),
    ),
  )
}
