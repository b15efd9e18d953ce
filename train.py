"""Train the propagation network; see ``--help``."""
from __future__ import annotations

import argparse
import json
import math
import signal
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from util.cli import SIGNALS, InputError, pluralize, run, warn
from util.hyper_para import parse

if TYPE_CHECKING:
    from torch.utils.data import DataLoader

    from dataset.stages import TrainingSet
    from model.model import Trainer
    from util.device import ProcessGroup
    from util.logger import Logger

REPORT_EVERY, IMAGE_EVERY = 100, 800
SAVES, LOG = Path("saves"), Path("log")
# Saved in checkpoints. A resumed run keeps the learning rate of its checkpoint.
LEARNING_RATE = ("lr", "steps", "gamma", "encoder_lr")
SETTINGS = ("stage", "seed", "size", "frames", "max_distance", "top_k", "kernel_sigma", "ema", *LEARNING_RATE)


def main() -> int:
    args = parse()
    import torch
    from torch.utils.data import DataLoader

    from dataset.sampling import batch_schedule
    from dataset.stages import collate, start_worker
    from model.model import Trainer
    from model.pretrained import start_from_imagenet, start_from_network
    from model.variants import build
    from util.allocation import keep_memory
    from util.device import ProcessGroup, pick_device, warn_of_slow_amp
    from util.logger import Logger, describe_commit

    group = ProcessGroup.join()
    keep_memory()
    torch.backends.cudnn.benchmark = args.benchmark
    device = pick_device(args.device)
    samples_per_iteration = args.batch_size * group.world_size
    data = build_data(args, samples_per_iteration)
    iterations_per_epoch = len(data) // samples_per_iteration
    if not iterations_per_epoch:
        raise InputError(f"{len(data)} samples do not fill a batch of {args.batch_size} in {group.world_size} "
                         f"processes: use a smaller --batch_size")

    torch.manual_seed(args.seed)
    network = build(args.network, single_object=args.stage == 0)
    if args.load_network:
        start_from_network(network, args.load_network)
    elif not args.load_model and not args.no_pretrained:
        start_from_imagenet(network, args.backbone_weights)
    trainer = Trainer(network.to(device, memory_format=torch.channels_last), args.lr, args.steps, args.gamma, args.amp,
                      args.encoder_lr, args.top_k, args.kernel_sigma, args.ema)
    settings = {name: getattr(args, name) for name in SETTINGS} | {
        "samples per iteration": samples_per_iteration, "rollouts": bool(args.rollouts)}
    start = resume(trainer, args, settings) if args.load_model else 0
    schedule = batch_schedule(len(data), args.batch_size, start, args.iterations, args.seed, group.rank,
                              group.world_size)
    loader = DataLoader(data, batch_sampler=schedule, num_workers=args.num_workers, collate_fn=collate,
                        pin_memory=device.type == "cuda", worker_init_fn=start_worker)

    logger, folder = None, None
    if group.rank == 0:
        if args.id.upper() != "NULL":
            folder = create_run_folder(args.id)
        logger = Logger(args.id, LOG / folder.name if folder else None)
        if args.amp:
            warn_of_slow_amp(device)
        logger.text("hyperpara", json.dumps(vars(args), default=str))
        logger.text("git", describe_commit(Path(__file__).parent))
        epochs = math.ceil(args.iterations / iterations_per_epoch)
        print(f"{pluralize(len(data), 'sample')}, {pluralize(iterations_per_epoch, 'iteration')} per epoch, "
              f"{pluralize(epochs, 'epoch')}, starting at iteration {start}", flush=True)
    group.any(False)         # raises if another process has failed; the next line would wait for it
    if group.world_size > 1:
        trainer.distribute()
    return loop(trainer, loader, args, group, logger, folder, start, settings)


def build_data(args: argparse.Namespace, samples_per_iteration: int) -> TrainingSet:
    """Return the data of the stage."""
    from dataset.stages import bl30k_stage, static_stage, video_stage

    def epochs(samples: int) -> int:
        return math.ceil(args.iterations / max(samples // samples_per_iteration, 1))
    if args.stage == 0:
        return static_stage(args.static_root, args.seed, args.size, args.frames)
    if args.stage == 1:
        return bl30k_stage(args.bl_root, epochs, args.seed, args.size, args.frames, args.max_distance)
    return video_stage(args.davis_root, args.yv_root, epochs, args.seed, args.size, args.frames, args.max_distance,
                       args.rollouts)


def resume(trainer: Trainer, args: argparse.Namespace, settings: dict[str, Any]) -> int:
    """Load the checkpoint and return its iteration. Its learning rate replaces that in ``settings``."""
    start, saved = trainer.load(args.load_model)
    if start >= args.iterations:
        raise InputError(f"{args.load_model}: is at iteration {start} already; ask for more with --iterations")
    for name, value in settings.items():
        if name in LEARNING_RATE and saved.get(name, value) != value:
            warn(f"{args.load_model}: resumes with its own --{name} {saved[name]}, not {value}")
            settings[name] = saved[name]
        elif saved.get(name, value) != value:
            warn(f"{args.load_model}: was saved with {name} {saved[name]} and resumes with {value}: the result differs "
                 f"from that of an uninterrupted run")
    return start


def create_run_folder(name: str) -> Path:
    """Create the folder of this run in ``saves``. Its name, the long id of the run, begins with the time."""
    while True:
        folder = SAVES / f"{time.strftime('%b%d_%H.%M.%S')}_{name}"
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:              # another run of this name has started in the same second
            time.sleep(0.1)


def loop(trainer: Trainer, loader: DataLoader, args: argparse.Namespace, group: ProcessGroup, logger: Logger | None,
         folder: Path | None, start: int, settings: dict[str, Any]) -> int:
    """Train until the last iteration or a signal, with logs and checkpoints. Returns the exit code."""
    from dataset.stages import batches
    from model.losses import MetricAverage
    from util.logger import training_grid
    from util.progress import progress_bar

    stop: list[int] = []
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, lambda received, _: stop.append(received))

    metrics, skipped, iteration, failure = MetricAverage(group), 0, start, None
    progress = progress_bar(args.iterations - start, "iterations") if logger else nullcontext()
    with progress as bar, batches(loader) as iterator:
        try:
            for batch in iterator:
                failure = batch if isinstance(batch, InputError) else None
                if folder and iteration > start and iteration % args.save_every == 0:
                    trainer.save(folder, iteration, settings)
                if group.any(bool(stop or failure)):       # all processes leave the loop at the same iteration
                    break
                for message in batch["skipped"]:
                    warn(f"{message}; another sample takes its place")
                skipped += len(batch["skipped"])
                lr = trainer.scheduler.get_last_lr()[0]
                values, predictions = trainer.step(batch, iteration)
                metrics.add(values)
                last = iteration == args.iterations - 1
                if args.debug or last or (iteration % REPORT_EVERY == 0 and iteration > start):
                    scalars = metrics.finish(iteration, lr)
                    if logger:
                        logger.scalars(scalars, iteration)
                    if not math.isfinite(scalars["total_loss"]):
                        raise InputError(f"the loss is not finite at iteration {iteration}; train with a smaller --lr, "
                                         f"from the last checkpoint if there is one")
                if logger and (args.debug or iteration % IMAGE_EVERY == 0):
                    masks = [prediction.probabilities.detach() for prediction in predictions]
                    if "predicted" in batch:
                        masks = [*batch["predicted"].unbind(1), *masks]
                    logger.image("train/pairs", training_grid(batch["frames"], batch["target"], masks), iteration)
                iteration += 1
                if bar:
                    bar.update(iteration - start)
            if bar:
                bar.finish(dirty=True)
        finally:
            saved = folder and iteration > start and not args.debug
            if saved:
                trainer.save(folder, iteration, settings)
    if failure:
        raise failure
    total_skipped = sum(group.gather(skipped))
    if logger:
        if total_skipped:
            print(f"{pluralize(total_skipped, 'sample')} could not be used and were replaced, see the warnings above")
        outcome = f"saved in {folder}" if saved else f"nothing saved ({'--debug' if folder else '--id NULL'})"
        verb = "finished" if iteration == args.iterations else "stopped"
        print(f"{verb} at iteration {iteration}, {outcome}", flush=True)
        logger.close()
    return 128 + stop[0] if stop else 0


if __name__ == "__main__":
    run(main)
