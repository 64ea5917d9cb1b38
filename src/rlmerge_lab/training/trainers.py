"""Training with TRL: SFTTrainer for bases and supervised experts, GRPOTrainer for reinforced ones."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rlmerge.errors import RunError
from rlmerge.extras import require

from .arms import Arm
from .environment import Environment, Question
from .profiles import Profile

Watch = Callable[[int], bool]
"""Called after each optimizer step with its number; True ends the training."""

PATIENCE = 20
"""Steps after which a reward that never told two samples of one prompt apart ends the run."""

_COMMON = {
    "weight_decay": 0.0,
    "gradient_checkpointing": False,
    "report_to": [],
    "save_strategy": "no",
    "logging_strategy": "no",
    "disable_tqdm": True,
}
"""Options of both trainers."""


def train_supervised(
    environment: Environment[Any],
    model: Any,
    rows: Sequence[Mapping[str, Any]],
    *,
    steps: int,
    batch: int,
    rate: float,
    seed: int,
    watch: Watch,
    schedule: str = "constant",
) -> None:
    """Train ``model`` in place on supervised examples, the ``rows`` of ``environment``, ``batch`` of them a step."""
    trl = require("trl")
    with tempfile.TemporaryDirectory() as scratch:
        options = trl.SFTConfig(
            output_dir=scratch,
            max_steps=steps,
            learning_rate=rate,
            lr_scheduler_type=schedule,
            seed=seed,
            dataset_kwargs={"skip_prepare_dataset": True},
            **_COMMON,
            **environment.trainer_options(model, batch),
        )
        _train(trl.SFTTrainer, environment, model, options, rows, watch)


def train_reinforced(
    environment: Environment[Any],
    model: Any,
    questions: Sequence[Question],
    arm: Arm,
    profile: Profile,
    seed: int,
    watch: Watch,
) -> None:
    """Train ``model`` in place by GRPO on ``questions`` with reward 1 for a right answer and 0 otherwise: on-policy,
    one update a batch.

    GRPO's advantage is (r - mean)/std over the samples of one prompt. Where a share p of n samples is right, that is
    √((1-p)/p) for a right and -√(p/(1-p)) for a wrong one, but for √(1-1/n), so the group weighs Σ|A| = 2n√(p(1-p)):
    less and less as the model learns, which is said to keep updates small. A ``constant`` arm takes the sign alone, +1
    and -1, so that a group with both kinds weighs n, however close to solved. Nothing else changes: groups that are all
    right or all wrong still teach nothing; but advantages no longer sum to 0, they push towards the more frequent kind.
    Adam divides by the size of gradients, so what counts is the weight of nearly solved prompts beside the others.

    An arm with ``kl`` adds that much of exp(d) - d - 1 to the loss of each token, d = log π_base - log π: an unbiased
    estimate of KL(π ‖ π_base) at the samples. The base is read again from where ``model`` was loaded from.

    RunError when the reward is the same for all samples of every prompt of the first ``PATIENCE`` steps: nothing can be
    learnt from a task that the base always or never solves.
    """
    trl = require("trl")
    rewards = Rewards(questions[0].task, profile.rl_samples)

    def reward(completions: list[Any], place: list[int], **_: Any) -> list[float]:
        said = [completion if isinstance(completion, str) else completion[0]["content"] for completion in completions]
        answers = zip(place, said, strict=True)
        given = [float(environment.is_right(questions[index], text or "")) for index, text in answers]
        rewards.see(given)
        return given

    class Trainer(trl.GRPOTrainer):
        """GRPO that can leave the negatives out, or take the sign of every advantage."""

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            output = super()._generate_and_score_completions(inputs)
            if arm.positives:
                output["advantages"] = output["advantages"].clamp(min=0)
            if arm.constant:
                output["advantages"] = output["advantages"].sign()
            return output

    require("torch").manual_seed(seed)
    rows = [{"prompt": environment.prompt(question), "place": place} for place, question in enumerate(questions)]
    with tempfile.TemporaryDirectory() as scratch:
        options = trl.GRPOConfig(
            output_dir=scratch,
            max_steps=profile.rl_steps,
            num_generations=profile.rl_samples,
            max_completion_length=environment.answer_tokens,
            temperature=1.0,
            top_p=1.0,
            top_k=0,
            beta=arm.kl,
            loss_type="grpo",
            scale_rewards="group",
            learning_rate=profile.rate * arm.rate,
            lr_scheduler_type="constant",
            seed=seed,
            **_COMMON,
            **environment.trainer_options(model, profile.rl_prompts * profile.rl_samples),
        )
        _train(Trainer, environment, model, options, rows, watch, reward_funcs=reward)


def _train(
    trainer: Any, environment: Environment[Any], model: Any, options: Any, rows: Any, watch: Watch, **more: Any
) -> None:
    """Run a Hugging Face trainer that asks ``watch`` after each step."""
    transformers = require("transformers")

    class Callback(transformers.TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> Any:
            if watch(state.global_step):
                control.should_training_stop = True
            return control

    made = trainer(
        model=model,
        args=options,
        train_dataset=require("datasets").Dataset.from_list(list(rows)),
        processing_class=environment.tokenizer(),
        callbacks=[Callback()],
        **more,
    )
    made.remove_callback(transformers.PrinterCallback)
    made.train()


class Rewards:
    """Whether the rewards seen so far tell samples of one prompt apart."""

    def __init__(self, task: str, group: int) -> None:
        self._task, self._group = task, group
        self._steps = 0
        self._told = False

    def see(self, rewards: Sequence[float]) -> None:
        """Rewards of one step, group after group; RunError when after ``PATIENCE`` steps no group held two values."""
        self._steps += 1
        groups = (rewards[first : first + self._group] for first in range(0, len(rewards), self._group))
        self._told = self._told or any(len(set(group)) > 1 for group in groups)
        if not self._told and self._steps >= PATIENCE:
            alike = sorted(set(rewards))
            what = f"every sample of each prompt got the same reward ({', '.join(f'{one:g}' for one in alike)})"
            hint = "There is nothing to reinforce: train the base longer or less long, or choose another task."
            raise RunError(f"{what} in {self._steps} steps", where=f"task '{self._task}'", hint=hint)
