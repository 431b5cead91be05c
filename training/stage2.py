"""Stage 2: the alignment branch (paper section 3.4): adapter, head and the last layers of both encoders.

    accelerate launch training/stage2.py --config training/configs/stage2.yaml --data DIR --init_from DIR --output DIR

Run the same command again to go on after an interruption.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

if __name__ == "__main__":  # a script's own folder comes first on the path; training/evaluate.py would hide `evaluate`
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch
from tqdm import tqdm

from training.arguments import parse_arguments
from training.checkpoints import resume, save_checkpoint, start
from training.data import ClipDataset, FrameCache, GlobalBatchSampler, load_clips, make_loader, some_clips
from training.losses import DualLoss
from training.models import initial_model, note_weights, save_best, select_branches, set_label_scale
from training.parameters import parameter_groups, unfix
from training.runs import (
    check_parts,
    finish,
    make_accelerator,
    make_average,
    make_schedule,
    print_banner,
    total_steps,
)
from training.steps import (
    FailedClips,
    score_clips,
    selection_score,
    to_device,
    training_step,
    validation_batches,
    validation_metrics,
    with_negative_labels,
)

STAGE = "stage2"
BRANCHES = ["alignment"]


def terms_of(branches: list[str]) -> list[str]:
    """The scores whose losses are added up: each branch."""
    return branches


def main(argv: list[str] | None = None) -> None:
    arguments = parse_arguments(__doc__, argv)
    accelerator = make_accelerator(arguments)
    start(accelerator, STAGE, arguments)

    # Data
    model, processor = initial_model(arguments.init_from)
    branches = arguments.branches or [branch for branch in BRANCHES if branch in model.config.branches]
    terms = terms_of(branches)
    with accelerator.main_process_first():
        clips = {part: load_clips(arguments.data, arguments.split_file, part) for part in ("train", "validation")}
    clips["validation"] = some_clips(clips["validation"], arguments.max_eval_clips, arguments.seed)
    check_parts(clips, arguments.batch_size)
    columns = arguments.label_columns(["quality", *branches])
    cache = FrameCache(arguments.cache, processor) if arguments.cache else None
    train = ClipDataset(clips["train"], processor, columns, arguments.seed, arguments.prompt_negatives, cache)
    validation = ClipDataset(clips["validation"], processor, columns, cache=cache)
    rank, processes = accelerator.process_index, accelerator.num_processes
    sampler = GlobalBatchSampler(len(train), arguments.batch_size, arguments.seed, rank, processes)
    on_gpu = accelerator.device.type == "cuda"
    loader = make_loader(train, sampler, arguments.num_workers, pin_memory=on_gpu)
    batches = validation_batches(len(validation), arguments.eval_batch_size, rank, processes)
    validation_loader = make_loader(validation, batches, arguments.num_workers, pin_memory=on_gpu)

    # Model
    mos = torch.tensor(clips["train"]["mos"], dtype=torch.float64)
    set_label_scale(model.config, mos.mean().item(), mos.std().item())
    note_weights(model.config, branches, arguments.weights_note)
    negative_mos = mos.min().item() if arguments.negative_mos is None else arguments.negative_mos
    loss = DualLoss(arguments.plcc_weight, arguments.rank_weight, model.config.mos_std)
    trained = select_branches(model, branches)
    unfix(trained, arguments.unfixed_ratio)
    if arguments.gradient_checkpointing:
        trained.gradient_checkpointing_enable()
    selected = trained.train()

    # Optimiser
    optimizer = torch.optim.AdamW(
        parameter_groups(trained, arguments.weight_decay), lr=arguments.learning_rate, betas=(0.9, 0.999)
    )
    schedule = make_schedule(optimizer, arguments, sampler.batches_per_epoch)
    trained, optimizer = accelerator.prepare(trained, optimizer)
    average = make_average(selected, arguments.ema_decay)
    accelerator.register_for_checkpointing(*([schedule, average] if average else [schedule]))

    # Resume
    progress = resume(accelerator, arguments.output)
    print_banner(accelerator, STAGE, arguments, selected, clips, sampler.batches_per_epoch, progress)
    if arguments.log_with:
        accelerator.init_trackers(STAGE)
    failed = FailedClips(accelerator, progress.failed, arguments.max_failed_clips)
    last_step = total_steps(arguments, sampler.batches_per_epoch)

    # Train
    while progress.step < last_step:
        sampler.epoch, sampler.start_batch = progress.epoch, progress.batch
        bar = tqdm(
            total=sampler.batches_per_epoch,
            initial=progress.batch,
            desc=f"epoch {progress.epoch + 1}",
            disable=not accelerator.is_main_process or None,
        )
        started, waited, losses = time.perf_counter(), 0.0, {}
        ready = time.perf_counter()
        for batch in loader:
            waited += time.perf_counter() - ready
            failed.add(batch["failed"])
            batch = with_negative_labels(to_device(batch, accelerator.device), negative_mos)
            losses = training_step(accelerator, trained, batch, terms, loss, arguments.gradient_accumulation_steps)
            accelerator.clip_grad_norm_(trained.parameters(), arguments.max_grad_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            if average:
                average.update_parameters(selected)
            progress.add_losses(losses)
            bar.update()
            bar.set_postfix({name: f"{value:.3f}" for name, value in losses.items()})
            accelerator.log({f"loss/{name}": value for name, value in losses.items()}, step=progress.step)
            if progress.step % arguments.checkpoint_steps == 0 and progress.batch < sampler.batches_per_epoch:
                save_checkpoint(accelerator, arguments.output, progress, arguments.checkpoints_kept)
            if progress.step == last_step:
                break
            ready = time.perf_counter()
        bar.close()
        seconds = time.perf_counter() - started

        # Validate, keep the best, make a checkpoint
        row = progress.close_epoch(seconds, waited)
        if progress.epoch % arguments.eval_epochs == 0 or progress.step == last_step:
            network = average.module if average else trained
            scores, labels, unread = score_clips(accelerator, network, validation_loader, ["quality", *branches])
            failed.add(unread)
            row |= validation_metrics(scores, labels)
            accelerator.log({name: value for name, value in row.items() if "/" in name}, step=progress.step)
            accelerator.print(progress.summary(terms))
            found = selection_score(row, terms)
            if progress.best_score is None or found > progress.best_score:
                progress.best_score, progress.best_epoch = found, progress.epoch
                save_best(accelerator, trained, average, model, processor, scores, labels, arguments.output)
        save_checkpoint(accelerator, arguments.output, progress, arguments.checkpoints_kept)

    finish(accelerator, STAGE, arguments, progress)


if __name__ == "__main__":
    main()
