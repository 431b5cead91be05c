"""One step of training, on any number of processes."""

import math
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, send_to_device
from torch import Tensor, nn

from modeling_aigcvqa.configuration_aigcvqa import BRANCH_INPUTS

from .losses import DualLoss, carry_back, score_gradients

INPUTS = dict.fromkeys(name for names in BRANCH_INPUTS.values() for name in names)  # of the model, each once


def training_step(
    accelerator: Accelerator, model: nn.Module, batch: dict[str, Any], terms: list[str], loss: DualLoss, parts: int
) -> dict[str, float]:
    """Add the gradient of the global batch's loss to the parameters; returns the losses by score.

    Args:
        batch: this process's share, as the loader gives it; `labels` of the shape of the scores.
        terms: the scores whose losses are added up.
        parts: the share goes through the network in so many parts. The first pass only scores, with the second pass's
            random numbers, so that the loss is that of the whole batch (Gao et al., 2021, "GradCache").

    Raises:
        FloatingPointError: for a loss that is not finite.
    """
    labels = {term: batch["labels"][term] for term in terms}
    micro_batches = list(split(batch, parts))
    if len(micro_batches) == 1:
        scores = score(model, batch, terms)
        losses, gradients = score_gradients(accelerator, scores, labels, loss)
        check_finite(losses)
        accelerator.backward(carry_back(scores, gradients))
        return losses
    states, scored = [], []
    with torch.no_grad():
        for micro_batch in micro_batches:
            states.append(get_rng_state(accelerator.device))
            scored.append(score(model, micro_batch, terms))
    scores = {term: torch.cat([part[term] for part in scored]) for term in terms}
    losses, gradients = score_gradients(accelerator, scores, labels, loss)
    check_finite(losses)
    chunks = {term: gradients[term].tensor_split(len(micro_batches)) for term in terms}
    for number, (micro_batch, state) in enumerate(zip(micro_batches, states)):
        set_rng_state(state, accelerator.device)
        last = number == len(micro_batches) - 1
        with nullcontext() if last else accelerator.no_sync(model):
            scores = score(model, micro_batch, terms)
            accelerator.backward(carry_back(scores, {term: chunks[term][number] for term in terms}))
    return losses


def score(model: nn.Module, batch: dict[str, Any], terms: list[str]) -> dict[str, Tensor]:
    """The scores of a batch by name, (b,); alignment is (b, P) where every clip has P prompts, its own the first."""
    outputs = model(**inputs_of(batch))
    scores = {term: outputs[f"{term}_score"] for term in terms}
    return {term: value[:, 0] if value.ndim == 2 and term == "quality" else value for term, value in scores.items()}


def inputs_of(batch: dict[str, Any]) -> dict[str, Tensor]:
    """What the model takes of a batch."""
    return {name: batch[name] for name in INPUTS if name in batch}


def split(batch: dict[str, Any], parts: int) -> Iterator[dict[str, Tensor]]:
    """The inputs of a batch in `parts` parts, or as many as there are clips."""
    inputs = inputs_of(batch)
    parts = min(parts, len(next(iter(inputs.values()))))
    chunks = {name: value.tensor_split(parts) for name, value in inputs.items()}
    for number in range(parts):
        yield {name: chunks[name][number] for name in inputs}


def check_finite(losses: dict[str, float]) -> None:
    if not all(math.isfinite(value) for value in losses.values()):
        raise FloatingPointError(
            f"the loss is not finite ({losses}); the last checkpoint is untouched. Lower learning_rate, set "
            "mixed_precision to no, or look at the labels."
        )


def get_rng_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def set_rng_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)


def with_negative_labels(batch: dict[str, Any], negative_mos: float) -> dict[str, Any]:
    """Labels (b,) of alignment become (b, P): the clip's own, then `negative_mos` for each wrong prompt."""
    if "alignment" in batch["labels"] and batch["input_ids"].ndim == 3:
        own = batch["labels"]["alignment"]
        wrong = own.new_full((len(own), batch["input_ids"].shape[1] - 1), negative_mos)
        batch["labels"] = batch["labels"] | {"alignment": torch.cat([own[:, None], wrong], 1)}
    return batch


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its inputs and labels (float32) on a device."""
    labels = {name: value.float() for name, value in batch["labels"].items()}
    inputs = send_to_device(inputs_of(batch), device, non_blocking=True)
    return batch | inputs | {"labels": send_to_device(labels, device)}


class FailedClips:
    """Clips that could not be read on any process: named once, counted, refused above a limit."""

    def __init__(self, accelerator: Accelerator, messages: list[str], limit: int):
        self.accelerator, self.messages, self.limit = accelerator, messages, limit

    def add(self, messages: list[str]) -> None:
        """Take in what this process met; to be called on every process.

        Raises:
            ValueError: where more clips failed than `limit`.
        """
        count = torch.tensor([len(messages)], device=self.accelerator.device)
        if self.accelerator.gather(count).sum() == 0:
            return
        new = [message for message in dict.fromkeys(gather_object(messages)) if message not in self.messages]
        self.messages.extend(new)
        for message in new:
            self.accelerator.print(f"cannot be read, another clip takes its place: {message}")
        if len(self.messages) > self.limit:
            raise ValueError(
                f"{len(self.messages)} clips cannot be read, more than max_failed_clips={self.limit}; the last is "
                f"{self.messages[-1]}. Check the data set, or raise the limit."
            )
