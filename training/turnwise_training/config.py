"""The settings of each stage and their defaults; what a recipe file may say. Reading one is recipe.py's work."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Mix = dict[str, float]
Precision = Literal["float32", "bfloat16"]
TrackerName = Literal["tensorboard", "wandb", "trackio"]


@dataclass(frozen=True)
class ModelShape:
    """A Llama architecture with tied embeddings."""

    hidden_size: int = 384
    layers: int = 6
    heads: int = 6
    kv_heads: int = 2
    intermediate_size: int = 768
    context_length: int = 2048
    rope_theta: float = 10000.0


@dataclass(frozen=True)
class Optimization:
    """Muon for the hidden matrices, AdamW for the rest, one schedule for both."""

    learning_rate: float = 3e-3
    """Peak rate of AdamW."""
    muon_learning_rate: float = 0.02
    """Peak rate of Muon; 0 trains everything with AdamW."""
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = 1e-8
    grad_clip: float = 1.0
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the rate falls after the warmup: linearly over the last `decay_share`, along a cosine, or not at all."""
    warmup_share: float = 0.02
    warmup_steps: int = 0
    """Steps of warmup, from 1/`warmup_steps` of the peak; 0 takes `warmup_share` of all steps instead."""
    decay_share: float = 0.3
    """A linear schedule falls to `final_share` of the peak over this last share of the steps."""
    final_share: float = 0.0


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters in place of training every weight (arXiv 2106.09685)."""

    rank: int = 16
    alpha: int = 32
    targets: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    """Names of the linear modules that get an adapter."""
    quantize: Literal["none", "nf4"] = "none"
    """nf4 holds the base in 4 bits (QLoRA, arXiv 2305.14314); it needs bitsandbytes and a GPU."""


@dataclass(frozen=True)
class Phase:
    """A stretch of pretraining: `share` of all tokens in rows of `seq_len`, drawn from the mix named `mix`."""

    share: float
    seq_len: int
    mix: str


@dataclass(frozen=True)
class TokenizerConfig:
    """`turnwise-train tokenizer`."""

    output: Path
    data: Path = Path("../shared/data/permissive")
    vocab_size: int = 8192
    context_length: int = 2048
    seed: int = 1
    sources: dict[str, float] = field(default_factory=dict)
    """Megabytes of text to read of each source at most."""


@dataclass(frozen=True)
class PretrainConfig:
    """`turnwise-train pretrain`."""

    name: str
    tokenizer: Path
    output: Path
    tokens: int
    phases: tuple[Phase, ...]
    mixes: dict[str, Mix]
    """For each mix, the share of its tokens that each source gives; a source that ends begins again."""
    model: ModelShape = ModelShape()
    optimization: Optimization = Optimization()
    policy_file: Path | None = None
    """The policy that the checkpoint's record names; without one, the policy that ships."""
    data: Path = Path("../shared/data/permissive")
    runs: Path = Path("runs")
    track: tuple[TrackerName, ...] = ()
    """Where the figures of log.jsonl are drawn as well."""
    batch_tokens: int = 16384
    """Tokens an optimizer step."""
    micro_tokens: int = 4096
    """Tokens a forward pass: memory only, never changes the result."""
    eval_tokens: int = 8192
    """Held-out tokens read of each source at most."""
    drop_containing: tuple[str, ...] = ()
    seed: int = 1
    save_every: int = 200
    compile: bool = True
    precision: Precision = "bfloat16"


@dataclass(frozen=True)
class Sampling:
    """How answers are sampled to be judged or ranked: the whole softmax at one temperature."""

    max_prompt_tokens: int = 512
    """Longer prompts are left out."""
    max_new_tokens: int = 128
    temperature: float = 1.0
    batch: int = 64
    """Answers sampled at once; memory and speed only."""
    precision: Precision = "bfloat16"


@dataclass(frozen=True)
class SFTConfig:
    """`turnwise-train sft`."""

    name: str
    model: Path
    """The checkpoint directory to start from."""
    output: Path
    rows: dict[str, int]
    """Rows taken of each source an epoch; a source that ends begins again. Running text is trained whole."""
    epochs: int = 2
    select: Literal["last", "loss", "reward"] = "last"
    """Which epoch's weights are kept: the last, the one of least held-out loss, or of the best mean reward."""
    reward_model: Path | None = None
    """The judge of `select: reward`: it scores replies sampled to held-out prompts."""
    sampling: Sampling = Sampling()
    """How these replies are sampled."""
    optimization: Optimization = Optimization(learning_rate=5e-4, muon_learning_rate=0.005, decay_share=0.9)
    lora: Lora | None = None
    policy_file: Path | None = None
    """The policy that the checkpoint's record names; without one, the policy that ships."""
    data: Path = Path("../shared/data/permissive")
    runs: Path = Path("runs")
    track: tuple[TrackerName, ...] = ()
    """Where the figures of log.jsonl are drawn as well."""
    seq_len: int = 512
    long_seq_len: int = 2048
    """Conversations over `seq_len` tokens are packed into rows of this length; longer ones are dropped and counted."""
    batch_tokens: int = 16384
    micro_tokens: int = 4096
    eval_tokens: int = 8192
    drop_containing: tuple[str, ...] = ()
    seed: int = 1
    save_every: int = 50
    compile: bool = True
    precision: Precision = "bfloat16"


@dataclass(frozen=True)
class RewardConfig:
    """`turnwise-train reward`."""

    name: str
    model: Path
    """The fine-tuned checkpoint whose output layer is replaced by a scalar head."""
    output: Path
    rankings: dict[str, int]
    """Prompts taken of each source of rankings or comparisons, at most; nothing is repeated within an epoch."""
    demonstrations: dict[str, int] = field(default_factory=dict)
    """Conversations of each source whose last replies shall score 0 on average."""
    fold: tuple[int, int] = (0, 1)
    """(i, n): train on the i-th of n disjoint parts of the prompts, so that reward models can judge each other."""
    epochs: int = 1
    batch: int = 64
    """Prompts an optimizer step, at most; all completions of a prompt stay together."""
    max_tokens: int = 1024
    """Rankings with a longer prompt and completion are dropped and counted."""
    micro_tokens: int = 8192
    margin: float = 0.0
    optimization: Optimization = Optimization(
        learning_rate=9e-6, muon_learning_rate=0.0, weight_decay=0.0, schedule="cosine", final_share=0.1
    )
    lora: Lora | None = None
    policy_file: Path | None = None
    """The policy that the checkpoint's record names; without one, the policy that ships."""
    data: Path = Path("../shared/data/permissive")
    runs: Path = Path("runs")
    track: tuple[TrackerName, ...] = ()
    """Where the figures of log.jsonl are drawn as well."""
    seed: int = 1
    save_every: int = 50
    precision: Precision = "bfloat16"


@dataclass(frozen=True)
class RewardTerm:
    """One term of the reward; the sum is weighted."""

    kind: Literal["model", "callable", "http", "principles"]
    source: str
    """A reward-model directory, `module:callable`, a URL, or a policy file whose principles the judge applies."""
    weight: float = 1.0
    judge: str = ""
    """The URL of the OpenAI-compatible server whose model judges by the principles."""


@dataclass(frozen=True)
class AdaptiveKL:
    """A KL coefficient that follows a target (arXiv 1909.08593)."""

    target: float = 6.0
    """Nats an answer."""
    horizon: int = 10000
    """Episodes."""


@dataclass(frozen=True)
class Ptx:
    """The pretraining mix of PPO-ptx (arXiv 2203.02155, section 3.5)."""

    mix: Mix
    coef: float = 1.0
    """Weight of the gradient of the mean NLL a token; the paper's 27.8 is tied to a normalisation it does not give."""
    rows: int = 64
    """Rows of text a minibatch."""
    seq_len: int = 256


@dataclass(frozen=True)
class EngineSettings:
    """What samples the rollouts."""

    kind: Literal["transformers", "vllm"] = "transformers"
    batch: int = 64
    """Answers sampled at once; memory and speed only."""
    url: str = ""
    """The server of an engine outside this process."""
    importance_cap: float | None = None
    """Weigh each token by min(policy / engine, this), where the engine's arithmetic is not the policy's own."""


@dataclass(frozen=True)
class PPOConfig:
    """`turnwise-train ppo`. Defaults are InstructGPT's where the paper prints one."""

    name: str
    model: Path
    """The fine-tuned checkpoint: where the policy starts, and the reference."""
    output: Path
    prompts: dict[str, int]
    """Prompts taken of each source at most; of conversations, the last turn that a reply follows."""
    rewards: tuple[RewardTerm, ...]
    value_model: Path | None = None
    """The reward model the value function starts from; without one it starts from the policy with a zero head."""
    held_out_reward: Path | None = None
    """A reward model that is watched and never trained on."""
    iterations: int = 500
    batch: int = 512
    """Rollouts an iteration."""
    minibatch: int = 64
    """Rollouts an optimizer step."""
    micro: int = 16
    """Rollouts a forward pass: memory only, never changes the result."""
    inner_epochs: int = 1
    max_prompt_tokens: int = 512
    max_new_tokens: int = 128
    temperature: float = 1.0
    beta: float = 0.02
    adaptive_kl: AdaptiveKL | None = None
    gamma: float = 1.0
    lam: float = 0.95
    clip: float = 0.2
    value_clip: float = 0.2
    value_coef: float = 0.1
    missing_eos_penalty: float = 1.0
    """Taken off the score of an answer that reached `max_new_tokens` without ending."""
    ema: float = 0.992
    """Decay a step of the averaged weights that are exported; 0 exports the last ones."""
    ptx: Ptx | None = None
    kl_max: float = 50.0
    """Mean KL an answer, in nats, at which the run stops."""
    policy: Optimization = Optimization(
        learning_rate=5e-6,
        muon_learning_rate=0.0,
        weight_decay=0.0,
        eps=1e-5,
        schedule="constant",
        warmup_steps=10,
    )
    value: Optimization = Optimization(
        learning_rate=9e-6,
        muon_learning_rate=0.0,
        weight_decay=0.0,
        eps=1e-5,
        schedule="constant",
        warmup_steps=10,
    )
    engine: EngineSettings = EngineSettings()
    lora: Lora | None = None
    policy_file: Path | None = None
    """The policy that the checkpoint's record names; without one, the policy that ships."""
    data: Path = Path("../shared/data/permissive")
    runs: Path = Path("runs")
    track: tuple[TrackerName, ...] = ()
    """Where the figures of log.jsonl are drawn as well."""
    show_every: int = 10
    """Iterations between the fixed prompts' answers in the log."""
    eval_tokens: int = 8192
    seed: int = 1
    save_every: int = 10
    precision: Precision = "bfloat16"


@dataclass(frozen=True)
class SampleConfig:
    """`turnwise-train sample`: answers to rank, written as rows of rankings."""

    model: Path
    output: Path
    """The file of rows; its name ends in .jsonl."""
    prompts: dict[str, int]
    """Prompts taken of each source at most."""
    answers: int = 4
    """K, the answers to each prompt."""
    rank_by: tuple[RewardTerm, ...] = ()
    """What ranks the answers by its score; without it all have rank 1 and wait for a labeler."""
    with_demonstration: bool = False
    """Whether the reply that a prompt's own conversation holds joins the answers, as the best of them."""
    sampling: Sampling = Sampling()
    data: Path = Path("../shared/data/permissive")
    seed: int = 1


@dataclass(frozen=True)
class EvaluateConfig:
    """`turnwise-train evaluate`."""

    checkpoints: dict[str, Path]
    """The model directories to judge, by name."""
    output: Path
    """The file of figures, evaluation.json."""
    against: str = ""
    """The checkpoint that the others are compared with; the first one unless named."""
    prompts: dict[str, int] = field(default_factory=dict)
    """Held-out prompts of each source that all checkpoints answer, at most."""
    judge: tuple[RewardTerm, ...] = ()
    """What prefers the answer of higher score; it should have trained on none of the checkpoints' data."""
    held_out: tuple[str, ...] = ()
    """Sources whose held-out rows' loss is taken; that of running text shows the alignment tax."""
    reward_models: dict[str, Path] = field(default_factory=dict)
    """Reward models whose accuracy and calibration are taken on the held-out rows of `rankings`."""
    rankings: dict[str, int] = field(default_factory=dict)
    """Prompts taken of each source of rankings at most."""
    harmful: dict[str, int] = field(default_factory=dict)
    """Prompts that should be refused; these sources are read whole, so no stage should train on them."""
    harmless: dict[str, int] = field(default_factory=dict)
    """Prompts that sound alarming and should be answered, read in the same way."""
    refusal_judge: RewardTerm | None = None
    """What scores a refusal above 0; without it phrases are looked for."""
    sampling: Sampling = Sampling()
    resamples: int = 1000
    """Bootstrap samples of the prompts behind each 95% interval."""
    eval_tokens: int = 8192
    max_tokens: int = 1024
    """Rankings with a longer prompt and completion are dropped."""
    data: Path = Path("../shared/data/permissive")
    seed: int = 1


@dataclass(frozen=True)
class Feedback:
    """How a model's own judgement makes training data of the principles (arXiv 2212.08073)."""

    assistant: str
    """What replies, criticises and revises: a checkpoint directory, or the URL of an OpenAI-compatible server."""
    judge: str = ""
    """What says which of two replies is better, named in the same way; the assistant unless named."""
    requests: int = 200
    """Requests that each principle is tried on at most."""
    least_preference: float = 0.6
    """Mean probability of the better reply below which two replies count as tied and are dropped."""
    max_new_tokens: int = 256
    temperature: float = 1.0
    batch: int = 16
    """Requests asked at once and recorded together."""


@dataclass(frozen=True)
class ConstitutionConfig:
    """`turnwise-train constitution`: demonstrations and preferences made of a policy's rules."""

    output: Path
    """The folder for demonstrations.jsonl, preferences.jsonl and manifest.json."""
    policy_file: Path | None = None
    """The policy whose rules are taught; without one, the policy that ships."""
    harmful: dict[str, int] = field(default_factory=dict)
    """Harmful requests taken of each labelled file at most, beside those that ship; the category must be known."""
    harmless: dict[str, int] = field(default_factory=dict)
    """Harmless prompts taken of each labelled file at most; only `feedback` uses them, for nobody wrote answers."""
    held_out: tuple[Path, ...] = ()
    """Files of prompts for evaluation; requests that nearly repeat one are left out."""
    excluded: tuple[str, ...] = ()
    """Sources of labelled rows that are left out whatever licence they state."""
    frames_each: int = 3
    """Frames that each written phrase stands in."""
    replies_each: int = 2
    """Phrasings of the reply to each harmful request."""
    feedback: Feedback | None = None
    data: Path = Path("../shared/data/safety")
    seed: int = 1


@dataclass(frozen=True)
class Rung:
    """A stage of a ladder."""

    stage: str
    recipe: Path
    """Found from the folder of the ladder's own file."""
    set: dict[str, str] = field(default_factory=dict)
    """Settings that replace the recipe's; {round} and {previous} stand for numbers of rounds."""


@dataclass(frozen=True)
class LadderConfig:
    """`turnwise-train ladder`: stages run one after the other."""

    before: tuple[Rung, ...] = ()
    """Stages that run once."""
    rounds: int = 1
    each: tuple[Rung, ...] = ()
    """Stages that run in every round."""


TrainedConfig = PretrainConfig | SFTConfig | RewardConfig | PPOConfig
"""The stages that write a checkpoint."""
StageConfig = TokenizerConfig | ConstitutionConfig | SampleConfig | EvaluateConfig | TrainedConfig
