"""Tune a small generator against the metric, and watch whether a judge that it never sees agrees.

    python -m dataset_scripts.synthetic_t2v --output drawn --num_prompts 8 --generators 10 --size 64 --skip_baselines
    python examples/tune_generator.py --data drawn --judge DIR --output tuned

A network of 0.3 million parameters learns to make clips of 16 frames from a prompt's number and noise. It is then tuned
in three ways: by the gradient of the reward; by the same with an anchor that keeps frames near to those of the start;
and, without a gradient of the reward, by a rule like GRPO (advantages within the clips of a prompt). Each JUDGE is
a model of another seed. OUTPUT gets curves.csv, curves.png, and sheets of the same clips before and after.

Scores are shown in deviations of the drawn clips' scores: at 0 a clip is as good as they are in the mean. Where the
reward rises and the judge does not, the generator has learned the reward's mistakes and not to make better clips.
"""

import argparse
import copy
import csv
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from modeling_aigcvqa import AIGCVQAReward
from modeling_aigcvqa.common.console import exits_with_status
from modeling_aigcvqa.common.files import check_new_folder
from modeling_aigcvqa.reward import group_advantages
from modeling_aigcvqa.video_reading_aigcvqa import read_video

FRAMES, SIZE, LATENT = 16, 64, 32
WIDTHS = (64, 64, 48, 24, 12)  # channels before and after each doubling of the size
GROUP = 8  # clips per prompt whose rewards are compared
JUDGED_EVERY, JUDGED = 5, 2  # steps, and clips per prompt


class Generator(nn.Module):
    """The number of a prompt and noise -> a clip (B, T, 3, H, W) in 0..1.

    The latent code of a clip is Gaussian, with a mean and a deviation per prompt; a decoder makes frames of it.
    """

    def __init__(self, prompts: int):
        super().__init__()
        self.mean, self.log_deviation = nn.Embedding(prompts, LATENT), nn.Embedding(prompts, LATENT)
        self.start = nn.Linear(LATENT, WIDTHS[0] * 2 * 4 * 4)
        stages = []
        scales = ((2, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2))  # 2 x 4 x 4 -> 16 x 64 x 64
        for scale, before, after in zip(scales, WIDTHS, WIDTHS[1:]):
            convolution = nn.Conv3d(before, after, 3, padding=1)
            stages += [nn.Upsample(scale_factor=scale), convolution, nn.GroupNorm(4, after), nn.SiLU()]
        self.decoder = nn.Sequential(*stages, nn.Conv3d(WIDTHS[-1], 3, 3, padding=1))

    def latents(self, prompts: Tensor, noise: Tensor) -> Tensor:
        return self.mean(prompts) + self.log_deviation(prompts).exp() * noise

    def log_probability(self, latents: Tensor, prompts: Tensor) -> Tensor:
        """Of latent codes (B, LATENT) under the prompts' Gaussians: (B,)."""
        deviation = self.log_deviation(prompts).exp()
        return torch.distributions.Normal(self.mean(prompts), deviation).log_prob(latents).sum(1)

    def frames(self, latents: Tensor) -> Tensor:
        start = self.start(latents).unflatten(1, (WIDTHS[0], 2, 4, 4))
        return self.decoder(start).sigmoid().movedim(2, 1)


@dataclass
class Drawn:
    """The drawn clips (N, T, 3, H, W) in 0..1, the number of the prompt of each, and the prompts."""

    clips: Tensor
    numbers: Tensor
    prompts: list[str]

    def texts(self, numbers: Tensor) -> list[str]:
        return [self.prompts[number] for number in numbers.tolist()]


def read_drawn(data: Path) -> Drawn:
    """The better half of the clips of every prompt."""
    folder = data / "data" / "train"
    rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    prompts = sorted({row["prompt"] for row in rows})
    clips, numbers = [], []
    for number, prompt in enumerate(prompts):
        own = sorted((row for row in rows if row["prompt"] == prompt), key=lambda row: -row["mos"])
        for row in own[: (len(own) + 1) // 2]:
            frames, _ = read_video(folder / row["file_name"], lambda total: range(min(total, FRAMES)))
            if frames.shape[:3] != (FRAMES, SIZE, SIZE):
                raise ValueError(
                    f"'{row['file_name']}' is not {FRAMES} frames of {SIZE} x {SIZE}; draw with --size 64."
                )
            clips.append(frames.movedim(-1, 1) / 255)
            numbers.append(number)
    return Drawn(torch.stack(clips), torch.tensor(numbers), prompts)


def learn(generator: Generator, drawn: Drawn, steps: int, batch: int = 8) -> None:
    """Learn to draw: every clip gets a code of its own, trained with the decoder (Bojanowski et al., 2018)."""
    codes = nn.Embedding(len(drawn.clips), LATENT)
    optimizer = torch.optim.AdamW([*generator.parameters(), *codes.parameters()], lr=3e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        chosen = torch.randint(len(drawn.clips), (batch,))
        loss = F.l1_loss(generator.frames(codes(chosen)), drawn.clips[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        for number in range(len(drawn.prompts)):
            own = codes.weight[drawn.numbers == number]
            generator.mean.weight[number] = own.mean(0)
            generator.log_deviation.weight[number] = (own.std(0) / 2).clamp(min=1e-2).log()


# A rule takes the generator, its copy from before the tuning and numbers of prompts, and gives a loss.
Rule = Callable[[Generator, Generator, Tensor], Tensor]


def by_gradient(reward: "Scale", drawn: Drawn, anchor: float) -> Rule:
    """Raise the reward by its gradient. `anchor` is the price of moving away from the frames of the start."""

    def loss(generator: Generator, start: Generator, numbers: Tensor) -> Tensor:
        noise = torch.randn(len(numbers), LATENT)
        frames = generator.frames(generator.latents(numbers, noise))
        value = -reward(frames, drawn.texts(numbers)).mean()
        if anchor:
            with torch.no_grad():
                before = start.frames(start.latents(numbers, noise))
            value = value + anchor * F.l1_loss(frames, before)
        return value

    return loss


def by_groups(reward: "Scale", drawn: Drawn) -> Rule:
    """Make latent codes likelier that are better than others of their prompt; the frames need no gradient."""

    def loss(generator: Generator, start: Generator, numbers: Tensor) -> Tensor:
        numbers = numbers.repeat_interleave(GROUP)
        with torch.no_grad():
            latents = generator.latents(numbers, torch.randn(len(numbers), LATENT))
            rewards = reward(generator.frames(latents), drawn.texts(numbers))
            advantages = group_advantages(rewards, numbers.tolist())
        return -(advantages * generator.log_probability(latents, numbers)).mean() / LATENT

    return loss


class Scale:
    """A reward in deviations of the drawn clips' scores."""

    def __init__(self, reward: AIGCVQAReward, drawn: Drawn):
        self.reward = reward
        with torch.no_grad():
            scores, _ = reward(drawn.clips, drawn.texts(drawn.numbers))
        self.mean, self.deviation = scores.mean(), scores.std()

    def __call__(self, frames: Tensor, prompts: list[str]) -> Tensor:
        return (self.reward(frames, prompts)[0] - self.mean) / self.deviation


@torch.no_grad()
def judged(generator: Generator, scores: dict[str, Scale], drawn: Drawn) -> tuple[dict[str, float], Tensor]:
    """The mean scores of clips from always the same noise, and the clips."""
    numbers = torch.arange(len(drawn.prompts)).repeat_interleave(JUDGED)
    noise = torch.randn(len(numbers), LATENT, generator=torch.Generator().manual_seed(0))
    frames = generator.frames(generator.latents(numbers, noise))
    return {name: float(score(frames, drawn.texts(numbers)).mean()) for name, score in scores.items()}, frames


def tune(start: Generator, rule: Rule, scores: dict[str, Scale], drawn: Drawn, steps: int, learning_rate: float):
    """Tune a copy of the generator; gives it and the scores by step."""
    generator = copy.deepcopy(start)
    optimizer = torch.optim.Adam(generator.parameters(), lr=learning_rate)
    curve = [{"step": 0, **judged(generator, scores, drawn)[0]}]
    for step in range(1, steps + 1):
        numbers = torch.randperm(len(drawn.prompts))[: max(1, len(drawn.prompts) // 2)]
        loss = rule(generator, start, numbers)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(generator.parameters(), 1.0)
        optimizer.step()
        if step % JUDGED_EVERY == 0 or step == steps:
            curve.append({"step": step, **judged(generator, scores, drawn)[0]})
            print(f"  step {step}: " + ", ".join(f"{name} {curve[-1][name]:+.2f}" for name in scores), flush=True)
    return generator, curve


def write_sheet(path: Path, frames: Tensor) -> None:
    """One row per clip with every fifth frame, for the first clip of each prompt."""
    rows = [torch.cat(list(clip[::5]), -1) for clip in frames[::JUDGED]]
    sheet = (torch.cat(rows, -2) * 255).round().to(torch.uint8).movedim(0, -1)
    Image.fromarray(sheet.contiguous().numpy()).resize((sheet.shape[1] * 2, sheet.shape[0] * 2)).save(path)


def write_curves(folder: Path, curves: dict[str, list[dict]], names: list[str]) -> None:
    with (folder / "curves.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, ["method", "step", *names])
        writer.writeheader()
        writer.writerows({"method": method, **point} for method, curve in curves.items() for point in curve)
    figure = Figure(figsize=(4 * len(curves), 3.2), layout="constrained")
    for axes, (method, curve) in zip(figure.subplots(1, len(curves), sharey=True, squeeze=False)[0], curves.items()):
        for name in names:
            axes.plot([point["step"] for point in curve], [point[name] for point in curve], label=name)
        axes.set(title=method, xlabel="step")
        axes.axhline(0, color="grey", linewidth=0.8)
    figure.axes[0].set_ylabel("deviations of the drawn clips")
    figure.axes[0].legend()
    figure.savefig(folder / "curves.png", dpi=120)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, required=True, help="folder that dataset_scripts.synthetic_t2v has written"
    )
    parser.add_argument("--judge", nargs="*", default=[], help="folders or Hub ids of other models")
    parser.add_argument("--output", type=Path, required=True, help="new folder")
    parser.add_argument("--model", default="small", help="the reward (default: small)")
    parser.add_argument(
        "--branches", default="technical,aesthetic", help="of both models (default: technical,aesthetic)"
    )
    parser.add_argument("--learn_steps", type=int, default=300, help="(default: 300)")
    parser.add_argument("--steps", type=int, default=50, help="of each tuning (default: 50)")
    parser.add_argument("--anchor", type=float, default=40.0, help="price of the anchor (default: 40)")
    parser.add_argument("--seed", type=int, default=0)
    return parser


@exits_with_status("tune_generator")
def main(argv: list[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    check_new_folder(arguments.output)
    torch.manual_seed(arguments.seed)
    drawn = read_drawn(arguments.data)
    judges = {f"judge {number}" if number else "judge": judge for number, judge in enumerate(arguments.judge)}
    models = {"reward": arguments.model} | judges
    branches = arguments.branches.split(",")
    scores = {name: Scale(AIGCVQAReward(model, branches, differentiable=True), drawn) for name, model in models.items()}
    start = Generator(len(drawn.prompts))
    print(f"{sum(p.numel() for p in start.parameters()):,} parameters learn from {len(drawn.clips)} drawn clips")
    learn(start, drawn, arguments.learn_steps)
    arguments.output.mkdir(parents=True)
    write_sheet(arguments.output / "before.png", judged(start, scores, drawn)[1])
    reward = scores["reward"]
    methods = {
        "gradient": (by_gradient(reward, drawn, anchor=0.0), 3e-4),
        "gradient with anchor": (by_gradient(reward, drawn, arguments.anchor), 3e-4),
        "groups": (by_groups(reward, drawn), 3e-2),
    }
    curves = {}
    for method, (rule, learning_rate) in methods.items():
        print(method)
        tuned, curves[method] = tune(start, rule, scores, drawn, arguments.steps, learning_rate)
        write_sheet(arguments.output / f"after_{method.replace(' ', '_')}.png", judged(tuned, scores, drawn)[1])
    write_curves(arguments.output, curves, list(models))
    print(f"curves and sheets: {arguments.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
