"""What could explain a difference: dilution, scale, rounding, unmatched training, and the three factors of
“Enough is as good as a feast”, each by the arms or the coefficients that differ in it alone."""

from __future__ import annotations

from .cells import AVERAGING, TUNABLE, Cells, Study, at_equal_scale, seed_means, spreads
from .figure import Figure, Margin, Side, difference, from_seeds, level
from .geometry import accuracy, conflict, forgetting, norm, pairs_of, unchanged
from .merging import gain
from .verdict import CANDIDATE, DTYPE, ENOUGH, GAIN, RAM, SIZE, Verdict


def verdicts(study: Study) -> tuple[Verdict, ...]:
    """Every candidate, judged by the arms or the coefficients that differ in it alone."""
    return (*_dilution(study), *_rounding(study), *_harder(study))


def _dilution(study: Study) -> list[Verdict]:
    default, tuned = (
        {arm: study.merge(arm, method, rule) for arm in ("rl", "sft")}
        for method, rule in ((AVERAGING, "default"), (TUNABLE, "tuned"))
    )
    recovered = {
        arm: difference(f"gain kept, {arm}, tuned coefficient − averaging", tuned[arm], default[arm], Side.ABOVE, GAIN)
        for arm in ("rl", "sft")
    }
    gap = difference("gain kept, averaging, rl − sft", default["rl"], default["sft"], Side.ABOVE, GAIN)
    left = difference("gain kept, tuned coefficient, rl − sft", tuned["rl"], tuned["sft"], Side.NEAR, GAIN)
    default_spread, matched_spread = spreads(study, "rl", ("default", "matched"))
    return [
        Verdict(
            "dilution", "dilution", "Averaging loses RL's gain by dilution: a tuned coefficient brings it back.", RAM,
            (recovered["rl"],), "The same experts and the same formula; only the coefficient differs, tuned on dev.",
            SIZE, beside=(recovered["sft"],),
        ),
        Verdict(
            "dilution-explains", "dilution", "Dilution explains the difference between RL and SFT under averaging.",
            CANDIDATE, (_closed(gap, default, tuned), left),
            "The gap under averaging, and what is left of it once each arm has its own tuned coefficient.",
            f"The direction of the gap is read from the seeds that its closing is judged on. {SIZE}",
            beside=(gap,), moot=_no_gap(gap),
        ),
        Verdict(
            "scale-ranks", "dilution", "Methods differ less once their merged updates have one norm.",
            CANDIDATE,
            (from_seeds("spread over methods of the gain kept, rl, default − matched norm",
                        default_spread, matched_spread, Side.ABOVE, GAIN),),
            "The same methods on the same experts, with every merged update rescaled to one norm.", SIZE,
            beside=(level("gain kept, rl, method − task arithmetic at the method's own norm",
                          at_equal_scale(study, "rl"), Side.NEAR, GAIN),),
        ),
    ]  # fmt: skip


def _closed(gap: Figure, default: dict[str, Cells], tuned: dict[str, Cells]) -> Figure:
    """How much smaller the gap becomes, in the direction that it has under averaging."""
    sign = -1.0 if gap.differences and sum(gap.differences) < 0 else 1.0
    common = default["rl"].keys() & default["sft"].keys() & tuned["rl"].keys() & tuned["sft"].keys()

    def gaps(merges: dict[str, Cells]) -> dict[int, float]:
        return seed_means({key: sign * (merges["rl"][key] - merges["sft"][key]) for key in common})

    return from_seeds("gap rl − sft, averaging − tuned coefficient", gaps(default), gaps(tuned), Side.ABOVE, GAIN)


def _no_gap(gap: Figure) -> str:
    return "The interval of the gap under averaging holds 0: there is no gap to explain." if gap.holds_zero else ""


def _rounding(study: Study) -> list[Verdict]:
    def stored(arm: str, method: str, rule: str) -> Figure:
        exact, rounded = study.exact_output(arm, method, rule), study.merge(arm, method, rule)
        name = f"gain kept, {arm}, {method} {rule}, float32 − bfloat16 output"
        return difference(name, exact, rounded, Side.ABOVE, GAIN)

    erased = [
        level(f"changes erased by rounding, {arm}, averaging", study.merge(arm, AVERAGING, "default", "erased"),
              Side.ABOVE, Margin(0.0, "share"))
        for arm in ("rl", "rl-bf16", "sft")
    ]  # fmt: skip
    return [
        Verdict(
            "rounding", "rounding", "Storing an average of RL experts in bfloat16 costs gain by erasing small changes.",
            CANDIDATE, (stored("rl", AVERAGING, "default"),),
            "The same merge, stored in float32, where nothing is rounded away.", f"{DTYPE} {SIZE}",
            beside=(stored("rl-bf16", AVERAGING, "default"), stored("rl", TUNABLE, "tuned"), *erased),
        ),
        Verdict(
            "bf16-weights", "rounding", "Training in bfloat16 weights makes RL updates sparser.", CANDIDATE,
            (unchanged(study, "rl-bf16", "rl"),), "The same RL with float32 master weights, stored in bfloat16.",
            f"{DTYPE} {SIZE}", (accuracy(study, "rl-bf16", "rl"), norm(study, "rl-bf16", "rl")),
            (unchanged(study, "rl", "sft"), gain(study, "rl-bf16", "rl", "default", Side.ABOVE)),
        ),
    ]  # fmt: skip


def _harder(study: Study) -> list[Verdict]:
    found: list[Verdict] = []
    for arm, words in (
        ("sft-high-lr", "at ten times the learning rate"),
        ("sft-long", "that were over-trained"),
    ):
        found.append(
            Verdict(
                arm, "supervised", f"Supervised experts {words} merge worse than accuracy-matched ones.", CANDIDATE,
                (gain(study, arm, "sft", "default", Side.BELOW),), "Same base, items and loss; averaging.",
                SIZE, (accuracy(study, arm, "sft"), norm(study, arm, "sft")),
                (gain(study, arm, "sft", "tuned", Side.BELOW), gain(study, arm, "sft", "matched", Side.BELOW)),
            )
        )  # fmt: skip
    return found


def factor_verdicts(study: Study) -> tuple[Verdict, ...]:
    """Each factor needs both links of its chain: the update that it is said to change, and the merge."""
    return (
        _factor(
            study, "on-policy", "rft", "sft",
            "On-policy data keep updates small and so let experts merge better.",
            norm(study, "rft", "sft", Side.BELOW),
            "Both supervised: on the base's own correct samples against on the teacher's answers.",
            "The samples are the base's and are not renewed, so they are on-policy at the start of training only.",
        ),
        _factor(
            study, "shrinking-advantage", "rl-positive", "rft",
            "An advantage that shrinks as the model learns keeps updates small and so lets experts merge better.",
            norm(study, "rl-positive", "rft", Side.BELOW),
            "Correct samples alone in both: fresh ones weighted by their advantage, or fixed ones of equal weight.",
            "Fresh samples and the shrinking advantage come together in these two arms and cannot be separated.",
        ),
        _factor(
            study, "negatives", "rl", "rl-positive",
            "Learning from negatives as well keeps updates out of conflict and so lets experts merge better.",
            conflict(study, "rl", "rl-positive"),
            "The same RL with and without its negative samples.",
            "Without negatives fewer samples push the weights, so the step of an update changes along with its sign.",
        ),
        _factor(
            study, "constant-advantage", "rl", "rl-constant",
            "An advantage that follows the group's reward, and not a constant one, keeps updates small and so lets "
            "experts merge better.",
            norm(study, "rl", "rl-constant", Side.BELOW),
            "The same RL with advantages of +1 and −1 for right and wrong samples of every mixed group.",
            "A constant advantage differs in size from the first step on, not only once the model has learnt.",
        ),
        _kl(study),
    )  # fmt: skip


def _kl(study: Study) -> Verdict:
    return Verdict(
        "kl-penalty", "factors", "A KL penalty to the base keeps RL experts mergeable: they keep more of their gain.",
        CANDIDATE, (gain(study, "rl-kl", "rl", "tuned", Side.ABOVE),),
        "The same RL with and without the penalty; every method tuned on dev with one budget, the mean over methods.",
        f"One coefficient of the penalty, and it may also hold back what is learnt, which the control shows. {SIZE}",
        (accuracy(study, "rl-kl", "rl"),),
        (
            gain(study, "rl-kl", "rl", "default", Side.ABOVE),
            norm(study, "rl-kl", "rl", Side.BELOW),
            conflict(study, "rl-kl", "rl"),
            forgetting(study, "rl-kl", "rl"),
        ),
    )  # fmt: skip


def _factor(
    study: Study, key: str, arm: str, without: str, claim: str, link: Figure, control: str, limit: str
) -> Verdict:
    return Verdict(
        key, "factors", claim, ENOUGH, (link, gain(study, arm, without, "default", Side.ABOVE)), control,
        f"{limit} {SIZE}", (accuracy(study, arm, without),),
        (
            gain(study, arm, without, "tuned", Side.ABOVE),
            gain(study, arm, without, "matched", Side.ABOVE),
            *((norm(study, arm, without, Side.BELOW),) if key == "negatives" else (conflict(study, arm, without),)),
            pairs_of(study, "conflict_norm", arm, without),
        ),
    )  # fmt: skip
