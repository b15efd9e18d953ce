"""Train the propagation network; see ``--help``."""
from __future__ import annotations

import argparse
import atexit
import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from dataset.sampling import BatchSchedule
from dataset.stages import TrainingSet, bl30k_stage, collate, end_workers, start_worker, static_stage, video_stage
from model.losses import hard_pixel_ratio
from model.model import Trainer
from model.network import PropagationNetwork
from model.pretrained import imagenet_weights, start_from_imagenet, start_from_network
from model.variants import build
from util.allocation import keep_memory
from util.cli import InputError, pluralize, run, warn
from util.device import ProcessGroup, pick_device
from util.files import prepare_folder
from util.hyper_para import parse
from util.logger import Logger, describe_commit, training_grid
from util.progress import training_bar

REPORT_EVERY, PICTURE_EVERY = 100, 800
SAVES = Path("saves")


def build_network(args: argparse.Namespace) -> PropagationNetwork:
    """The network of the stage, with the weights that the arguments ask for."""
    torch.manual_seed(args.seed)
    network = build(args.network, single_object=args.stage == 0)
    if args.load_network:
        start_from_network(network, args.load_network)
    elif not args.load_model and not args.no_pretrained:
        weights = imagenet_weights(args.network, args.backbone_weights)
        try:
            start_from_imagenet(network, weights)
        except InputError as error:
            raise InputError(f"{args.backbone_weights or 'the installed weights'}: {error}") from None
    return network


def build_data(args: argparse.Namespace, share: ProcessGroup) -> TrainingSet:
    """The data of the stage."""
    def epochs(samples: int) -> int:
        per_epoch = samples // (args.batch_size * share.world)
        return -(-args.iterations // max(per_epoch, 1))
    if args.stage == 0:
        return static_stage(args.static_root, args.seed, args.size, args.frames)
    if args.stage == 1:
        return bl30k_stage(args.bl_root, epochs, args.seed, args.size, args.frames, args.files_every)
    return video_stage(args.davis_root, args.yv_root, epochs, args.seed, args.size, args.frames)


class Report:
    """Averages figures over a window of iterations and over all processes."""

    def __init__(self, share: ProcessGroup):
        self.share = share
        self.window: list[dict[str, torch.Tensor]] = []
        self.since = time.perf_counter()

    def add(self, figures: dict[str, torch.Tensor]) -> None:
        """Take one iteration's figures, without waiting for the device."""
        self.window.append(figures)

    def conclude(self, iteration: int, lr: float) -> dict[str, float]:
        """The window's means, by the names of the log; starts a new window. To be called by all processes."""
        count = len(self.window)
        sums = {name: sum(figures[name] for figures in self.window).cpu() for name in self.window[0]}
        seconds, self.since = time.perf_counter() - self.since, time.perf_counter()
        self.window = []
        parts = self.share.gather({name: value.tolist() for name, value in sums.items()})
        losses = {name: sum(part[name] for part in parts) / len(parts) / count for name in sums if name != "overlap"}
        overlaps = torch.tensor([part["overlap"] for part in parts]).sum(0)
        iou = ((overlaps[:, 0] + 1) / (overlaps[:, 1] + 1)).tolist()
        return {**losses, "total_loss": sum(losses.values()), "p": hard_pixel_ratio(iteration),
                **dict(zip(("iou/iou", "iou/sec_iou"), iou, strict=False)), "lr": lr, "time": seconds / count}


def train(args: argparse.Namespace, share: ProcessGroup) -> int:
    """Build, then loop. Returns the exit code."""
    keep_memory()
    device = pick_device(args.device)
    torch.backends.cudnn.benchmark = args.benchmark
    data = build_data(args, share)
    trainer = Trainer(build_network(args).to(device, memory_format=torch.channels_last), args.lr, args.steps,
                      args.gamma, args.amp, distributed=share.world > 1, encoder_lr=args.encoder_lr,
                      top_k=args.top_k)
    start, settings = 0, {"stage": args.stage, "seed": args.seed, "size": args.size, "frames": args.frames,
                          "samples an iteration": args.batch_size * share.world}
    rates = {name: getattr(args, name) for name in ("lr", "steps", "gamma", "encoder_lr")}
    if args.load_model:
        start, before = trainer.load(args.load_model)
        if start >= args.iterations:
            raise InputError(f"{args.load_model}: is at iteration {start} already; ask for more with --iterations")
        for name in settings.keys() & before.keys():
            if settings[name] != before[name]:
                warn(f"{args.load_model}: trained so far with {name} {before[name]}, goes on with {settings[name]}: "
                     f"not the samples that it would have seen")
        for name in rates.keys() & before.keys():
            if rates[name] != before[name]:
                warn(f"{args.load_model}: goes on with its own --{name} {before[name]}, not {rates[name]}")
        rates |= {name: before[name] for name in rates.keys() & before.keys()}
    try:
        schedule = BatchSchedule(len(data), args.batch_size, start, args.iterations, args.seed, share.rank, share.world)
    except ValueError as error:
        raise InputError(f"{error}: use a smaller --batch_size") from None
    loader = DataLoader(data, batch_sampler=schedule, num_workers=args.num_workers, collate_fn=collate,
                        pin_memory=device.type == "cuda", worker_init_fn=start_worker)
    atexit.register(end_workers)

    main_process = share.rank == 0
    logger = Logger(None if args.id.upper() == "NULL" else args.id) if main_process else None
    if main_process:
        if logger.long_id:
            prepare_folder(SAVES / logger.long_id)
        logger.text("hyperpara", json.dumps(vars(args), default=str))
        logger.text("git", describe_commit(Path(__file__).parent))
        print(f"{pluralize(len(data), 'sample')}, {pluralize(schedule.per_epoch, 'iteration')} an epoch, "
              f"{pluralize(schedule.epochs, 'epoch')}, starting at iteration {start}", flush=True)

    def save(iteration: int) -> None:
        if main_process and logger.long_id:
            trainer.save(SAVES / logger.long_id, logger.long_id, iteration, {**settings, **rates})

    return loop(trainer, loader, args, share, logger, start, save)


def batches(loader: DataLoader) -> Iterator[dict[str, Any]]:
    """What the loader gives; a worker's error without the traceback that PyTorch makes its message."""
    try:
        yield from loader
    except InputError as error:
        raise InputError(str(error).strip().splitlines()[-1].removeprefix("util.cli.InputError: ")) from None


def loop(trainer: Trainer, loader: DataLoader, args: argparse.Namespace, share: ProcessGroup, logger: Logger | None,
         start: int, save: Any) -> int:  # noqa: ANN401
    """Go through the batches; report, picture and save on the way, at the end and when asked to stop."""
    stop: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda received, _: stop.append(received))
    report, skipped, iteration = Report(share), 0, start
    bar = training_bar(start, args.iterations, args.batch_size * share.world) if share.rank == 0 else None
    try:
        for batch in batches(loader):
            for message in batch["skipped"]:
                warn(f"{message}; another sample takes its place")
            skipped += len(batch["skipped"])
            if iteration > start and iteration % args.save_every == 0:
                save(iteration)
            # Processes stop together, or the others would wait for the gradients of the one that left.
            if share.any(bool(stop)):
                break
            lr = trainer.scheduler.get_last_lr()[0]
            figures, predictions = trainer.step(batch, iteration)
            report.add(figures)
            if args.debug or iteration % REPORT_EVERY == 0 and iteration > start or iteration == args.iterations - 1:
                values = report.conclude(iteration, lr)
                if logger:
                    logger.scalars(values, iteration)
            if logger and iteration % PICTURE_EVERY == 0:
                found = tuple(part.probabilities.detach() for part in predictions)
                logger.picture("train/pairs", training_grid(batch["frames"], batch["target"], found), iteration)
            iteration += 1
            if bar:
                bar.update(iteration - start)
    except Exception:
        if iteration > start:
            save(iteration)
        raise
    if bar:
        bar.finish(dirty=True)
    save(iteration)
    total_skipped = sum(share.gather(skipped))
    if logger:
        if total_skipped:
            print(f"{total_skipped} samples could not be used and were replaced, see the warnings above")
        where = f"saved in {SAVES / logger.long_id}" if logger.long_id else "nothing saved (--id NULL)"
        print(f"{'stopped' if stop else 'finished'} at iteration {iteration}, {where}", flush=True)
        logger.close()
    return 128 + stop[0] if stop else 0


def main() -> int:
    args = parse()
    share = ProcessGroup.join()
    try:
        return train(args, share)
    finally:
        if share.world > 1 and sys.exc_info()[0] is None:
            torch.distributed.destroy_process_group()


if __name__ == "__main__":
    run(main)
