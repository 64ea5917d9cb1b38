"""Reinforcement learning with TRL's GRPOTrainer: on-policy, one update a batch, no KL penalty."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rlmerge.errors import RunError
from rlmerge.extras import require
from rlmerge_lab.training.environment import Asked, World
from rlmerge_lab.training.profiles import Arm, Profile
from rlmerge_lab.training.watching import watching

if TYPE_CHECKING:
    from rlmerge_lab.training.sft import Watch

PATIENCE = 20
"""Steps after which a reward that never told two samples of one prompt apart ends the run."""


def train_reinforced(
    world: World[Any],
    model: Any,
    questions: Sequence[Asked],
    arm: Arm,
    profile: Profile,
    seed: int,
    watch: Watch,
) -> None:
    """Train ``model`` in place by GRPO on ``questions`` with reward 1 for a right answer and 0 otherwise.

    RunError when the reward is the same for all samples of every prompt of the first ``PATIENCE`` steps: nothing can be
    learnt from a task that the base always or never solves.
    """
    trl = require("trl")
    rewards = Rewards(questions[0].task, profile.rl_samples)

    def reward(completions: list[Any], place: list[int], **_: Any) -> list[float]:
        given = [
            float(world.right(questions[index], _text(said))) for index, said in zip(place, completions, strict=True)
        ]
        rewards.see(given)
        return given

    class Trainer(trl.GRPOTrainer):
        """GRPO that can leave the negatives out."""

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            output = super()._generate_and_score_completions(inputs)
            if arm.positives:
                output["advantages"] = output["advantages"].clamp(min=0)
            return output

    require("torch").manual_seed(seed)
    with tempfile.TemporaryDirectory() as scratch:
        trainer = Trainer(
            model=model,
            reward_funcs=reward,
            args=trl.GRPOConfig(
                output_dir=scratch,
                max_steps=profile.rl_steps,
                num_generations=profile.rl_samples,
                max_completion_length=world.answer_tokens,
                temperature=1.0,
                top_p=1.0,
                top_k=0,
                beta=0.0,
                loss_type="grpo",
                scale_rewards="group",
                learning_rate=profile.rate * arm.rate,
                lr_scheduler_type="constant",
                weight_decay=0.0,
                seed=seed,
                gradient_checkpointing=False,
                report_to=[],
                save_strategy="no",
                logging_strategy="no",
                disable_tqdm=True,
                **world.trainer(model, profile.rl_prompts * profile.rl_samples),
            ),
            train_dataset=require("datasets").Dataset.from_list(
                [{"prompt": world.turn(question), "place": place} for place, question in enumerate(questions)]
            ),
            processing_class=world.tokenizer(),
            callbacks=[watching(watch)],
        )
        trainer.remove_callback(require("transformers").PrinterCallback)
        trainer.train()


def _text(completion: Any) -> str:
    """What was said, in text or in the one message of a chat."""
    return completion if isinstance(completion, str) else completion[0]["content"] or ""


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
