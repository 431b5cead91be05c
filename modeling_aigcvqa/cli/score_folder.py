"""`aigcvqa score --manifest M --output DIR/`: score any number of clips into a folder, on one machine or on many."""

import argparse
import json
import os
from contextlib import nullcontext

from rich.console import Console

from ..common.choices import SHIPPED
from ..common.console import INTERRUPTED
from ..common.places import is_address
from .shared import REAL_WEIGHTS, named_branches

ENGINES = ("local", "ray")
RAY_OPTIONS = ("address", "workers", "gpus_per_worker")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("with an --output that is a folder")
    group.add_argument("--engine", choices=ENGINES, help="local (one process computes, the default) or ray")
    group.add_argument("--retry_failed", action="store_true", help="score the clips in the ledger of failures again")
    group.add_argument("--decoders", type=int, metavar="N", help="processes that decode videos (default: see the docs)")
    group.add_argument(
        "--threads",
        type=int,
        default=1,
        help="CPU threads of a process that computes (default: 1); the last digits of scores depend on them",
    )
    group.add_argument("--rows_per_shard", type=int, metavar="N", help="rows per parquet file (default: 1000)")
    group.add_argument("--address", help="of a Ray cluster, or auto (default: Ray is started on this machine)")
    group.add_argument("--workers", type=int, metavar="N", help="processes that compute, with --engine ray")
    group.add_argument("--gpus_per_worker", type=float, metavar="G", help="GPUs of each; a fraction shares one")


def is_meant(arguments: argparse.Namespace) -> bool:
    """Whether the command scores into a folder."""
    output = arguments.output or ""
    is_folder = output.endswith(("/", os.sep)) or os.path.isdir(output) or is_address(output)
    return bool(is_folder or arguments.engine or arguments.retry_failed or is_address(arguments.manifest or ""))


def run(arguments: argparse.Namespace, errors: Console) -> int:
    """Score, print the accounts, and return 0 if every clip is accounted for, scored or failed."""
    check_arguments(arguments)
    from ..clip_scorer import ScorerSettings
    from ..runs.program import ROWS_PER_SHARD, Run

    settings = ScorerSettings(
        model=arguments.model,
        branches=named_branches(arguments.branches),
        device=arguments.device,
        dtype=arguments.dtype,
        alignment_num_frames=arguments.alignment_num_frames,
        on_damage=arguments.on_damage,
        scale=arguments.scale,
        batch_size=arguments.batch_size,
        threads=arguments.threads,
    )
    run = Run(
        manifest=arguments.manifest,
        output=arguments.output,
        settings=settings,
        rows_per_shard=arguments.rows_per_shard or ROWS_PER_SHARD,
        retry_failed=arguments.retry_failed,
        overwrite=arguments.overwrite,
    )
    engine, connected = _engine(arguments)
    try:
        with connected:
            summary = run.score(engine, errors)
    except KeyboardInterrupt:
        errors.print(f"interrupted: what is scored is in '{arguments.output}'; the same command goes on.", style="red")
        return INTERRUPTED
    report(summary, arguments, errors)
    return 0 if summary["complete"] else 1


def _engine(arguments: argparse.Namespace) -> tuple:
    if arguments.engine == "ray":
        from ..runs.ray_engine import RayEngine

        options = {name: getattr(arguments, name) for name in (*RAY_OPTIONS, "decoders")}
        engine = RayEngine(**options)
        return engine, engine.connected(arguments.threads)
    from ..runs.local_engine import LocalEngine

    return LocalEngine(1 if arguments.decoders is None else arguments.decoders), nullcontext()


def check_arguments(arguments: argparse.Namespace) -> None:
    """Raise ValueError for what is wrong, before anything is loaded."""
    if arguments.videos or not arguments.manifest:
        raise ValueError("an --output that is a folder goes with --manifest, not with VIDEO...")
    if not arguments.output or arguments.output.endswith((".csv", ".jsonl", ".parquet")):
        raise ValueError(f"--engine and --retry_failed go with a folder, --output DIR/ (got {arguments.output!r}).")
    if arguments.prompt is not None:
        raise ValueError("--prompt goes with VIDEO...; a manifest has its own column prompt.")
    if arguments.uncertainty is not None:
        raise ValueError("--uncertainty goes with VIDEO... or --output FILE, not with a folder.")
    if arguments.num_workers:
        raise ValueError("--num_workers goes with --output FILE; for a folder the processes are --decoders.")
    for name, least in (("batch_size", 1), ("threads", 1), ("workers", 1), ("rows_per_shard", 1), ("decoders", 0)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise ValueError(f"--{name} {value}: expected at least {least}.")
    if arguments.gpus_per_worker is not None and arguments.gpus_per_worker < 0:
        raise ValueError(f"--gpus_per_worker {arguments.gpus_per_worker}: expected at least 0.")
    if arguments.engine != "ray":
        given = next((name for name in RAY_OPTIONS if getattr(arguments, name) is not None), None)
        if given:
            raise ValueError(f"--{given} goes with --engine ray.")
    elif arguments.dtype == "auto":
        raise ValueError("--dtype auto may differ from machine to machine; name the dtype.")


def report(summary: dict, arguments: argparse.Namespace, errors: Console) -> None:
    if arguments.json:
        print(json.dumps(summary, ensure_ascii=False, indent=2))
    else:
        this_run = summary["this_run"]
        print(
            f"{summary['in']} clips: {summary['scored']} scored, {summary['failed']} failed. This run: "
            f"{this_run['clips']} in {this_run['seconds']:.0f} s, {this_run['clips_per_second']:.3g} per second."
        )
        print(f"Scores: {arguments.output.rstrip('/')}/scores/*.parquet. Higher is better.{_noted(summary)}")
    if summary["repeated"]:
        errors.print(f"{summary['repeated']} rows repeat a clip with its prompt; each is scored once.", style="yellow")
    if arguments.model == SHIPPED:
        errors.print(REAL_WEIGHTS)
    if summary["failed"]:
        ledger = f"{arguments.output.rstrip('/')}/failures.parquet"
        errors.print(
            f"{summary['failed']} clips could not be scored: see '{ledger}', or try --retry_failed.", style="red"
        )
    for unreadable in summary["unreadable_inputs"]:
        errors.print(f"{unreadable['reason']}; the same command tries it again.", style="red")


def _noted(summary: dict) -> str:
    return f" {summary['note']}" if summary["note"] else ""
