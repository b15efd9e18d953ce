"""Download BL30K, the rendered videos of training stage 1: six segments of about 115 GB, about 700 GB in all.

  python download_bl30k.py                      everything, into ../BL30K; needs 805 GB of free space
  python download_bl30k.py --only a b --yes     two segments, without confirmation

Each segment is downloaded, extracted, merged into BL30K, and its archive deleted before the next one begins. Finished
segments are skipped. An interrupted run resumes when you start it again.
"""
from __future__ import annotations

from util.cli import run
from util.download import DataSet, Source, install_all, parse_arguments

SEGMENTS = {name: Source(f"BL30K/BL30K_{name}.tar", drive_id, 115, "BL30K", shared=True) for name, drive_id in (
    ("a", "1z9V5zxLOJLNt1Uj7RFqaP2FZWKzyXvVc"), ("b", "11-IzgNwEAPxgagb67FSrBdzZR7OKAEdJ"),
    ("c", "1ZfIv6GTo-OGpXpoKen1fUvDQ0A_WoQ-Q"), ("d", "1G4eXgYS2kL7_Cc0x3N1g1x7Zl8D_aU_-"),
    ("e", "1Y8q0V_oBwJIY27W_6-8CD1dRqV2gNTdE"), ("f", "1nawBAazf_unMv46qGBHhWcQ4JXZ5883r"))}
BL30K = DataSet(
    "BL30K, 30,000 rendered videos",
    "rendered with ShapeNet models, so ShapeNet's terms apply: research and teaching only (https://shapenet.org)",
    ("Cheng et al., Modular Interactive Video Object Segmentation, CVPR 2021",
     "Chang et al., ShapeNet: An Information-Rich 3D Model Repository, arXiv 1512.03012"), list(SEGMENTS.values()))


def main() -> None:
    args = parse_arguments(__doc__, SEGMENTS)
    install_all([BL30K._replace(sources=[SEGMENTS[name] for name in sorted(set(args.only))])], args.root, args.yes)
    print(f"done: {args.root / 'BL30K'}")


if __name__ == "__main__":
    run(main)
