"""How to train: three presets, and all differences between them.

| setting                   | official           | paper                 | recommended            |
|---------------------------|--------------------|-----------------------|------------------------|
| thought tokens b          | 9 (12 passes)      | 9 (12 passes)         | 12                     |
| tokens ahead              | 4                  | 4                     | 2                      |
| thoughts per position     | 2                  | 2                     | 2                      |
| likelihood loss           | 0.5 base,          | mixed only; the base  | 0.5 base, 0.5 mixed    |
|                           | 0.5 mixed          | gets no term          |                        |
| weight of the policy loss | 1e6                | 1e6                   | 10                     |
| log-prob of a thought     | mean over tokens   | sum over tokens: log  | mean over tokens       |
|                           |                    | p of the whole        |                        |
| temperature of log-probs  | 3                  | 3                     | 1, as sampled          |
| negative advantages       | dropped            | dropped               | kept                   |
| what means run over       | losses but exact   | real targets          | real targets           |
|                           | zeros; policy:     |                       |                        |
|                           | pads, too          |                       |                        |
| learning rate; the head's | 1e-6; 1e-6         | 1e-6; 1e-6            | 2e-4; 3e-3             |
| START's and END's         | 1e-6               | 1e-6                  | 2e-4                   |
| START, END = param times  | 100                | 100                   | 1: 100 is for lr 1e-6  |
| AdamW betas               | 0.9, 0.999         | 0.9, 0.999            | 0.9, 0.98              |
| decay, warm-up, clip      | 0.001, 20, 1.0     | 0.001, 20, 1.0        | 0.001, 20, 1.0         |
| rate of the first step    | 0                  | 0                     | a share of warm-up     |
| rates after the warm-up   | linearly to 0 at   | as official           | linearly to 0 at the   |
|                           | step 100,000       |                       | end of the run         |

`official` does what the official code does, `paper` what Zelikman et al. (2024, section 4.4 and
appendix) say where the code differs. Two differences are not followed: the paper mixes
log-probabilities where the code mixes hidden states, which is the same up to renormalisation and
what the engine serves; and the code takes every end-of-text token for padding, so that its models
never learn to end a text. Here a genuine end of text is learnt like any other token, in every
preset, and only what a batch was filled up with is padding (`training.thoughts.batch`).
`recommended` is for small models and was found by experiment. The Gumbel temperature and the think
heads of the official code have no effect there, and are missing here.
"""

from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

from training.errors import UsageError

Reduction = Literal["mean", "sum"]
Averaging = Literal["nonzero", "targets"]
Schedule = Literal["linear", "constant"]
Beginning: TypeAlias = Literal["tokenizer", "bos", "nothing"]
"""What stands before a text (`training.beginning`). `tokenizer`: the special tokens that the
tokenizer itself puts there, as a server does with a prompt; often none. `bos`: the
beginning-of-text token or, where there is none, the end-of-text token, whatever the tokenizer
does."""
BEGINNINGS: tuple[Beginning, ...] = get_args(Beginning)
Recompute = Literal["nothing", "mlp", "layer"]
"""What the backward pass recomputes (`training.kernels.activation_checkpointing`)."""


@dataclass(frozen=True)
class Thinking:
    """The shape of the thoughts.

    `budget` is the number of sampled tokens of a thought, START and END not counted (official
    `n_ahead` - 3); `ahead` the number of true tokens predicted after it (`n_true`, `n_ahead_talk`);
    `per_position` the number of thoughts at every position (`n_passes`); `temperature` that of
    sampling. Raises `UsageError`.
    """

    budget: int = 9
    ahead: int = 4
    per_position: int = 2
    temperature: float = 1.0

    def __post_init__(self) -> None:
        for name, least in (("budget", 0), ("ahead", 1), ("per_position", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}, expected {least} or more")
        if self.temperature <= 0:
            raise UsageError(f"temperature is {self.temperature}, expected more than 0")

    @property
    def path_length(self) -> int:
        """Tokens of a thought's path that are fed: START, the thought, END, all true tokens but the
        last, which is only predicted.
        """
        return self.budget + 2 + self.ahead - 1


@dataclass(frozen=True)
class Objective:
    """The loss: base_weight·NLL_base + talk_weight·NLL_mixed + policy_weight·L_policy.

    `averaging` is `nonzero` for the official means (likelihoods: losses that are exactly 0 do not
    count; policy: every position counts, padding too) or `targets` for means over real targets.
    """

    base_weight: float = 0.5
    talk_weight: float = 0.5
    policy_weight: float = 1e6
    thought_reduction: Reduction = "mean"
    logprob_temperature: float = 3.0
    keep_negative_advantages: bool = False
    averaging: Averaging = "nonzero"


@dataclass(frozen=True)
class Optimisation:
    """AdamW and its surroundings. Base model, mixing head, and START with END have a learning rate
    each; `embedding_scale` multiplies that of the START and END that are fed, since Adam's step
    does not depend on the scale of a gradient.

    In the warm-up the learning rates rise linearly; `warmup_from_zero`: from 0, as in the official
    code, whose first step changes nothing. After it all fall by `schedule`: `linear`, to 0 at step
    `decay_steps` (by default the last of the run), or `constant`. The official code decays over
    100,000 steps and keeps a checkpoint of the first hundred, so that its rates are all but
    constant.
    """

    learning_rate: float = 1e-6
    head_learning_rate: float = 1e-6
    embedding_learning_rate: float = 1e-6
    embedding_scale: float = 100.0
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = 1e-3
    warmup_steps: int = 20
    warmup_from_zero: bool = True
    schedule: Schedule = "linear"
    decay_steps: int | None = 100_000
    max_grad_norm: float = 1.0
    sequences_per_step: int = 8
    window: int = 256


@dataclass(frozen=True)
class Preset:
    """Everything that decides what one training step computes."""

    thinking: Thinking
    objective: Objective
    optimisation: Optimisation

    @property
    def thinks(self) -> bool:
        """Whether thoughts have a part in the loss: not where there are none and only the base
        model's likelihood counts, as in a control.
        """
        objective = self.objective
        weights = (objective.talk_weight, objective.policy_weight)
        return self.thinking.budget > 0 or any(weights)


OFFICIAL = Preset(Thinking(), Objective(), Optimisation())
PAPER = Preset(
    Thinking(),
    Objective(base_weight=0.0, talk_weight=1.0, thought_reduction="sum", averaging="targets"),
    Optimisation(),
)
RECOMMENDED = Preset(
    Thinking(budget=12, ahead=2),
    Objective(
        policy_weight=10.0,
        logprob_temperature=1.0,
        keep_negative_advantages=True,
        averaging="targets",
    ),
    Optimisation(
        learning_rate=2e-4,
        head_learning_rate=3e-3,
        embedding_learning_rate=2e-4,
        embedding_scale=1.0,
        betas=(0.9, 0.98),
        warmup_from_zero=False,
        decay_steps=None,
    ),
)
PRETRAINED = replace(
    RECOMMENDED,
    thinking=Thinking(budget=8, ahead=2),
    objective=replace(RECOMMENDED.objective, policy_weight=2.0),
    optimisation=replace(RECOMMENDED.optimisation, head_learning_rate=3e-4, warmup_steps=5),
)
PRESETS = {
    "official": OFFICIAL,
    "paper": PAPER,
    "recommended": RECOMMENDED,
    "pretrained": PRETRAINED,
}
