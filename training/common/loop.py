"""The training loop of all stages: set up, train an epoch, validate, keep the best model."""

import dataclasses
import math
import time
from pathlib import Path
from typing import IO

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader
from tqdm import tqdm

from modeling_aigcvqa import AIGCVQAConfig, AIGCVQAModel, AIGCVQAProcessor

from .arguments import SUM, StageArguments
from .batches import ClipDataset, FrameCache, make_loader
from .checkpoints import check_same_run, keep_plain_names, resume, save_checkpoint, take_output
from .fingerprints import decisive_arguments, decisive_content
from .lora import add_lora
from .losses import check_losses, fetch_values, source_losses
from .main_process import on_main_process
from .mixtures import MixedBatchSampler, Mixture, PairDataset, Share
from .models import initial_model, select_branches
from .parameters import parameter_groups, train_mode, unfix
from .records import add_run
from .runs import check_best, finish, make_accelerator, make_schedule, print_banner, save_best
from .sources import Source
from .stage import Stage, TrainingRun
from .steps import FailedClips, to_device, training_step, with_negative_labels
from .trackers import start_trackers
from .validation import (
    MIN_CLIPS,
    WORST,
    all_metrics,
    score_clips,
    selection_score,
    undefined,
    validation_batches,
)

NORM = "gradient_norm"


def train(stage: Stage, arguments: StageArguments) -> None:
    """Run a stage to its end, starting from its last checkpoint if there is one."""
    run = set_up(stage, arguments)
    try:
        print_banner(run)
        while run.progress.step < run.last_step and not stops_early(run):
            row = train_epoch(run)
            if run.progress.epoch % run.arguments.eval_epochs == 0 or run.progress.step == run.last_step:
                validate(run, row)
            save_checkpoint(run.accelerator, run.arguments.output, run.progress, run.arguments.checkpoints_kept)
        finish(run)
    finally:
        if run.lock:
            run.lock.close()


def stops_early(run: TrainingRun) -> bool:
    """Whether the last `patience` validations brought no better epoch. Says so."""
    patience, progress = run.arguments.patience, run.progress
    if patience is None or progress.best_epoch is None:
        return False
    stops = progress.epoch - progress.best_epoch >= patience * run.arguments.eval_epochs
    if stops:
        run.accelerator.print(f"stops early: epoch {progress.best_epoch} is the best for {patience} validations.")
    return stops


def train_epoch(run: TrainingRun) -> dict:
    """Train to the end of the current epoch; returns the epoch's row of the history."""
    arguments, accelerator, progress = run.arguments, run.accelerator, run.progress
    run.sampler.epoch, run.sampler.start_batch = progress.epoch, progress.batch
    per_epoch = run.sampler.batches_per_epoch
    bar = tqdm(
        total=per_epoch,
        initial=progress.batch,
        desc=f"epoch {progress.epoch + 1}",
        disable=not accelerator.is_main_process or None,
    )
    pending: list[dict[str, Tensor]] = []  # losses and norm of the gradient on the device
    started = ready = logged = time.perf_counter()
    waited = 0.0
    for batch in run.loader:
        waited += time.perf_counter() - ready
        run.failed.add(batch["failed"])
        source = batch["source"]
        batch = with_negative_labels(to_device(batch, accelerator.device), run.negative_mos[source])
        loss, parts = run.losses[source], arguments.gradient_accumulation_steps
        losses = training_step(accelerator, run.trained, batch, run.terms, loss, parts)
        norm = accelerator.clip_grad_norm_(run.trained.parameters(), arguments.max_grad_norm)
        named = {name: losses[term] for term, name in run.loss_names(source).items()}
        pending.append(named | with_norm(norm))
        run.optimizer.step()
        run.schedule.step()
        run.optimizer.zero_grad()
        if run.average:
            run.average.update_parameters(run.selected)
        progress.advance()
        bar.update()
        saves = progress.step % arguments.checkpoint_steps == 0 and progress.batch < per_epoch
        if saves or progress.step % arguments.log_steps == 0:
            bar.set_postfix(record_steps(run, pending, time.perf_counter() - logged))
            logged = time.perf_counter()
        if saves:
            save_checkpoint(accelerator, arguments.output, progress, arguments.checkpoints_kept)
        if progress.step == run.last_step:
            break
        ready = time.perf_counter()
    record_steps(run, pending, time.perf_counter() - logged)
    bar.close()
    return progress.close_epoch(time.perf_counter() - started, waited)


def with_norm(norm: Tensor | None) -> dict[str, Tensor]:
    """The norm of the gradient before it was clipped, by name; DeepSpeed gives none."""
    if norm is None:
        return {}
    whole = norm.full_tensor() if hasattr(norm, "full_tensor") else torch.as_tensor(norm)
    return {NORM: whole.detach().float()}


def record_steps(run: TrainingRun, pending: list[dict[str, Tensor]], seconds: float) -> dict[str, str]:
    """Fetch and log the losses of the last steps, and gather the clips that could not be read.

    Both wait for the device and the other processes, so the loop calls this every few steps only.

    Args:
        pending: the losses and the norm of the gradient of each step; emptied.
        seconds: time since the last call.

    Returns:
        The last losses, as text for the progress bar.

    Raises:
        FloatingPointError: if a loss is not finite.
    """
    fetched = fetch_values(pending)
    first = run.progress.step - len(pending) + 1
    pending.clear()
    state = {"learning_rate": run.schedule.get_last_lr()[0]}
    if seconds and fetched:
        state["clips_per_second"] = len(fetched) * run.arguments.batch_size / seconds
    for step, values in enumerate(fetched, first):
        losses = {name: value for name, value in values.items() if name != NORM}
        check_losses(losses)
        run.progress.add_losses(losses)
        logged = {f"loss/{name}": value for name, value in losses.items()}
        logged |= {name: value for name, value in values.items() if name == NORM}
        run.accelerator.log(logged | (state if step == run.progress.step else {}), step=step)
    run.failed.gather()
    return {name: f"{value:.3f}" for name, value in fetched[-1].items()} if fetched else {}


def validate(run: TrainingRun, row: dict) -> None:
    """Add the validation figures to the row of the epoch, and save the model if they are the best so far."""
    accelerator, progress = run.accelerator, run.progress
    network = run.average.module if run.average else run.trained
    names = [SUM, *run.selected.config.branches]
    scored, unread = score_clips(accelerator, network, run.validation_loader, names)
    run.failed.add(unread)
    run.failed.gather()
    known = {name for earlier in progress.history for name in undefined(earlier)}
    row |= all_metrics(run.sources, scored)
    accelerator.log({name: value for name, value in row.items() if "/" in name and value is not None}, progress.step)
    accelerator.print(progress.summary(run.terms))
    warn_of_undefined(run, sorted(set(undefined(row)) - known))
    found = selection_score(row, run.figures)
    # Among epochs without any figure the last one, which has trained longest, is kept.
    if progress.best_score is None or found > progress.best_score or found == progress.best_score == WORST:
        progress.best_score, progress.best_epoch = found, progress.epoch
        save_best(run, scored)


def warn_of_undefined(run: TrainingRun, names: list[str]) -> None:
    """Say once per run that scores have no validation figures."""
    if names:
        run.accelerator.print(
            f"warning: the figures of {', '.join(names)} are undefined: the scores or the labels of the validation "
            f"clips are all equal, or fewer than {MIN_CLIPS} clips have a label. They count as the worst figure, and "
            "training goes on."
        )


def set_up(stage: Stage, arguments: StageArguments) -> TrainingRun:
    """Prepare processes, data, model and optimiser, and load the state of an interrupted run."""
    if arguments.unfixed_ratio is None:
        arguments = dataclasses.replace(arguments, unfixed_ratio=stage.unfixed_ratio)
    accelerator = make_accelerator(arguments)
    lock = on_main_process(accelerator, lambda: take_output(Path(arguments.output)))
    try:
        return make_run(stage, arguments, accelerator, lock)
    except BaseException:
        if lock:
            lock.close()
        raise


def make_run(stage: Stage, arguments: StageArguments, accelerator: Accelerator, lock: IO[str] | None) -> TrainingRun:
    """Prepare data, model and optimiser in an output folder that is locked, see `set_up`."""
    output = Path(arguments.output)
    model, processor = initial_model(arguments.init_from)
    branches = arguments.branches or [branch for branch in stage.branches if branch in model.config.branches]
    sources = stage.load_sources(arguments, [SUM, *branches], accelerator)
    on_main_process(
        accelerator,
        lambda: check_same_run(
            output,
            arguments,
            decisive_arguments(arguments)
            | {"stage": stage.name, "mixed_precision": accelerator.mixed_precision}
            | decisive_content(arguments, model, processor, branches, sources),
        ),
    )
    selected = prepare_model(stage, arguments, model, branches, sources)
    sampler, loaders = make_loaders(arguments, accelerator, sources, processor, selected)

    groups = parameter_groups(selected, arguments.weight_decay)
    optimizer = torch.optim.AdamW(groups, lr=arguments.learning_rate, betas=(0.9, 0.999))
    schedule = make_schedule(optimizer, arguments, sampler.batches_per_epoch)
    trained, optimizer = accelerator.prepare(selected, optimizer)
    decay = arguments.ema_decay
    average = AveragedModel(selected, multi_avg_fn=get_ema_multi_avg_fn(decay)) if decay else None
    accelerator.register_for_checkpointing(*([schedule, average] if average else [schedule]))

    keep_plain_names(accelerator)

    terms = stage.terms(selected.config.branches)
    progress = resume(accelerator, arguments.output)
    on_main_process(accelerator, lambda: check_best(output, progress))
    if arguments.log_with:
        start_trackers(accelerator, stage.name, arguments, progress.step)
    return TrainingRun(
        stage=stage,
        arguments=arguments,
        accelerator=accelerator,
        model=model,
        selected=selected,
        trained=trained,
        average=average,
        processor=processor,
        sources=sources,
        sampler=sampler,
        loader=loaders["train"],
        validation_loader=loaders["validation"],
        optimizer=optimizer,
        schedule=schedule,
        losses=source_losses(arguments, model.config, sources, terms),
        terms=terms,
        negative_mos=[lowest_label(arguments, source) for source in sources],
        progress=progress,
        lock=lock,
        failed=FailedClips(accelerator, progress.failed, arguments.max_failed_clips),
    )


def lowest_label(arguments: StageArguments, source: Source) -> float:
    """The label of a wrong prompt: the one that was chosen, or the lowest MOS. Pairs have no wrong prompts."""
    if not source.has_mos:
        return math.nan
    return source.mos.min().item() if arguments.negative_mos is None else arguments.negative_mos


def prepare_model(
    stage: Stage, arguments: StageArguments, model: AIGCVQAModel, branches: list[str], sources: list[Source]
) -> AIGCVQAModel:
    """The branches to train, as a model in training mode, see `select_branches`. Also updates the config of `model`."""
    describe_model(stage, arguments, model.config, branches, sources)
    selected = select_branches(model, branches)  # copies the config, so describe_model comes first
    if arguments.lora_rank:
        add_lora(selected, arguments.adapted_encoders, arguments.lora_rank, arguments.lora_factor, arguments.seed)
    unfix(selected, arguments.unfixed_ratio)
    if arguments.gradient_checkpointing:
        selected.gradient_checkpointing_enable()
    train_mode(selected)
    return selected


def make_loaders(
    arguments: StageArguments,
    accelerator: Accelerator,
    sources: list[Source],
    processor: AIGCVQAProcessor,
    selected: AIGCVQAModel,
) -> tuple[MixedBatchSampler, dict[str, DataLoader]]:
    """The sampler of the training batches, and the loaders of the training and the validation clips."""
    cache = FrameCache(arguments.cache, processor) if arguments.cache else None
    training, validation, shares = [], [], []
    for source in sources:
        columns = {name: source.columns[name] for name in [SUM, *selected.config.branches]} if source.has_mos else {}
        common = {"processor": processor, "labels": columns, "inputs": selected.config.inputs, "cache": cache}
        negatives = arguments.prompt_negatives if source.has_mos else 0
        own = {"seed": arguments.seed, "prompt_negatives": negatives, "maps": source.maps}
        clips = ClipDataset(source.clips["train"], **own, **common)
        validation.append(ClipDataset(source.clips["validation"], **common))
        if source.has_mos:
            training.append(clips)
            shares.append(Share(len(clips), 1, source.weight))
        else:
            pairs = source.pairs["train"]
            training.append(PairDataset(clips, pairs, source.columns))
            shares.append(Share(len(pairs), 2, source.weight))
    rank, processes = accelerator.process_index, accelerator.num_processes
    sampler = MixedBatchSampler(shares, arguments.batch_size, arguments.seed, rank, processes)
    batches = validation_batches([len(clips) for clips in validation], arguments.eval_batch_size, rank, processes)
    pin_memory = accelerator.device.type == "cuda"
    return sampler, {
        part: make_loader(Mixture(data), order, arguments.num_workers, pin_memory)
        for part, data, order in (("train", training, sampler), ("validation", validation, batches))
    }


def describe_model(
    stage: Stage, arguments: StageArguments, config: AIGCVQAConfig, branches: list[str], sources: list[Source]
) -> None:
    """Write the scale of the labels, the weights of the loss and this run into the model's config.

    The scale is that of the first data set with a MOS. Pairs say nothing of a scale: without a MOS it stays as it is.

    Args:
        branches: names of the branches that train.
    """
    if sources[0].has_mos:
        config.rescale(*sources[0].scale)
    config.plcc_loss_weight, config.rank_loss_weight = arguments.plcc_weight, arguments.rank_weight
    add_run(
        config,
        stage.name,
        branches,
        arguments.all_data,
        labels={term: sources[0].columns[term] for term in stage.terms(branches) if term in sources[0].columns},
        unfixed_ratio=arguments.unfixed_ratio,
        teacher=sources[0].teacher,
        lora_rank=arguments.lora_rank,
        num_clips=sum(len(source.clips["train"]) for source in sources),
    )
    if arguments.caveat is not None:
        config.set_provenance(dataclasses.replace(config.get_provenance(), caveat=arguments.caveat))
