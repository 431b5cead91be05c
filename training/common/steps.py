"""One training step, on any number of processes."""

from contextlib import nullcontext
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object, send_to_device
from torch import Tensor, nn

from modeling_aigcvqa.configuration_aigcvqa import BRANCH_INPUTS

from .losses import Loss, carry_back, score_gradients

INPUTS = dict.fromkeys(name for names in BRANCH_INPUTS.values() for name in names)  # all inputs of the model


def training_step(
    accelerator: Accelerator, model: nn.Module, batch: dict[str, Any], terms: list[str], loss: Loss, parts: int
) -> dict[str, Tensor]:
    """Add the gradient of the loss on the global batch to the gradients of the parameters; returns the losses by score.

    With several micro-batches, a first pass without gradients computes the scores of the whole batch, and a second pass
    with the same random numbers propagates the gradient (Gao et al., 2021, "GradCache"). The loss therefore does not
    depend on the number of micro-batches.

    Args:
        batch: this process's share of the batch, from the loader; `labels` have the shapes of the scores.
        terms: names of the scores whose losses are added up.
        parts: number of micro-batches.
    """
    labels = {term: batch["labels"][term] for term in terms}
    micro_batches = split(batch, parts)
    if len(micro_batches) == 1:
        scores = score(model, batch, terms)
        losses, gradients = score_gradients(accelerator, scores, labels, loss)
        accelerator.backward(carry_back(scores, gradients))
        return losses
    states, scored = [], []
    with torch.no_grad():
        for micro_batch in micro_batches:
            states.append(get_rng_state(accelerator.device))
            scored.append(score(model, micro_batch, terms))
    scores = {term: torch.cat([part[term] for part in scored]) for term in terms}
    losses, gradients = score_gradients(accelerator, scores, labels, loss)
    chunks = {term: gradients[term].tensor_split(len(micro_batches)) for term in terms}
    for number, (micro_batch, state) in enumerate(zip(micro_batches, states)):
        set_rng_state(state, accelerator.device)
        last = number == len(micro_batches) - 1
        with nullcontext() if last else accelerator.no_sync(model):
            scores = score(model, micro_batch, terms)
            accelerator.backward(carry_back(scores, {term: chunks[term][number] for term in terms}))
    return losses


def score(model: nn.Module, batch: dict[str, Any], terms: list[str]) -> dict[str, Tensor]:
    """The scores of a batch by name, (b,), and maps, (b, T/2, 7, 7).

    Alignment is (b, P) if each clip has P prompts, its own prompt first.
    """
    outputs = model(**inputs_of(batch))
    scores = {term: outputs[term if term.endswith("_map") else f"{term}_score"] for term in terms}
    return {term: value[:, 0] if value.ndim == 2 and term == "quality" else value for term, value in scores.items()}


def inputs_of(batch: dict[str, Any]) -> dict[str, Tensor]:
    """The inputs of the model in a batch."""
    return {name: batch[name] for name in INPUTS if name in batch}


def split(batch: dict[str, Any], parts: int) -> list[dict[str, Tensor]]:
    """The inputs of a batch, split into `parts` micro-batches, or one per clip if there are fewer clips."""
    inputs = inputs_of(batch)
    parts = min(parts, len(next(iter(inputs.values()))))
    chunks = zip(*(value.tensor_split(parts) for value in inputs.values()))
    return [dict(zip(inputs, chunk)) for chunk in chunks]


def get_rng_state(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def set_rng_state(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)


def with_negative_labels(batch: dict[str, Any], negative_mos: float) -> dict[str, Any]:
    """Extend the alignment labels (b,) to (b, P): the label of the clip, then `negative_mos` for each wrong prompt."""
    if "alignment" in batch["labels"] and batch["input_ids"].ndim == 3:
        own = batch["labels"]["alignment"]
        wrong = own.new_full((len(own), batch["input_ids"].shape[1] - 1), negative_mos)
        batch["labels"] = batch["labels"] | {"alignment": torch.cat([own[:, None], wrong], 1)}
    return batch


def to_device(batch: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Move the inputs and the labels (as float32) of a batch to a device."""
    labels = {name: value.float() for name, value in batch["labels"].items()}
    return batch | send_to_device(inputs_of(batch) | {"labels": labels}, device, non_blocking=True)


class FailedClips:
    """Collects the clips that could not be read on any process, and stops the run if there are too many."""

    def __init__(self, accelerator: Accelerator, messages: list[str], limit: int):
        self.accelerator, self.messages, self.limit = accelerator, messages, limit
        self.new: list[str] = []  # of this process, not yet gathered

    def add(self, messages: list[str]) -> None:
        """Add messages of this process; `gather` reports them."""
        self.new.extend(messages)

    def gather(self) -> None:
        """Print the new messages of all processes. Every process must call this method.

        Raises:
            ValueError: if more clips failed than `limit`.
        """
        count = torch.tensor([len(self.new)], device=self.accelerator.device)
        if self.accelerator.gather(count).sum() == 0:
            return
        new = [message for message in dict.fromkeys(gather_object(self.new)) if message not in self.messages]
        self.messages.extend(new)
        self.new = []
        for message in new:
            self.accelerator.print(f"cannot be read, another clip takes its place: {message}")
        if len(self.messages) > self.limit:
            raise ValueError(
                f"{len(self.messages)} clips cannot be read, more than max_failed_clips={self.limit}; the last is "
                f"{self.messages[-1]}. Check the data set, or raise the limit."
            )
