"""Download the data sets for training and benchmarks, and put them where the scripts expect them.

  python download_datasets.py                      everything, beside the project
  python download_datasets.py --only davis --yes   DAVIS, without confirmation

Creates static/, DAVIS/{2016,2017/trainval,2017/test-dev} and
YouTube/{train,train_480p,valid,all_frames/valid_all_frames} from Google Drive. Finished folders are skipped. An
interrupted run resumes when you start it again. An archive that is already at the script's download path is used
instead of being downloaded.
"""
from __future__ import annotations

import os

from util.cli import run
from util.download import DataSet, Source, install_all, parse_arguments

DATA_SETS = {       # sizes are estimates
    "static": DataSet(
        "Static images: FSS-1000, DUTS, ECSSD, BIG and HRSOD",
        "five research data sets, each with its authors' own terms: see their pages",
        ("Li et al., FSS-1000: A 1000-Class Dataset for Few-Shot Segmentation, CVPR 2020",
         "Wang et al., Learning to Detect Salient Objects with Image-level Supervision (DUTS), CVPR 2017",
         "Shi et al., Hierarchical Image Saliency Detection on Extended CSSD (ECSSD), TPAMI 2016",
         "Cheng et al., CascadePSP: Toward Class-Agnostic and Very High-Resolution Segmentation (BIG), CVPR 2020",
         "Zeng et al., Towards High-Resolution Salient Object Detection (HRSOD), ICCV 2019"),
        [Source("static_data.zip", "1wUJq3HcLdN-z1t4CsUhjeZ9BVDb9YKLd", 2, "static", ("DUTS-TR", "fss"))]),
    "davis": DataSet(
        "DAVIS 2016 and 2017 (trainval, test-dev, scribbles)",
        "see https://davischallenge.org and the README and SOURCES files in the archives",
        ("Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation, CVPR 2016",
         "Pont-Tuset et al., The 2017 DAVIS Challenge on Video Object Segmentation, arXiv 1704.00675",
         "Caelles et al., The 2018 DAVIS Challenge on Video Object Segmentation (scribbles), arXiv 1803.00557"),
        [Source("DAVIS/DAVIS-data.zip", "198aRlh5CpAoFz0hfRgYbiNenn_K8DxWD", 2, "DAVIS/2016"),
         Source("DAVIS/2017/DAVIS-2017-trainval-480p.zip", "1kiaxrX_4GuW6NmiVuKGSGVoKGWjOdp6d", 0.8,
                "DAVIS/2017/trainval"),
         Source("DAVIS/2017/DAVIS-2017-test-dev-480p.zip", "1fmkxU2v9cQwyb62Tj1xFDdh2p4kDsUzD", 0.3,
                "DAVIS/2017/test-dev"),
         Source("DAVIS/2017/DAVIS-2017-scribbles-trainval.zip", "1JzIQSu36h7dVM8q0VoE4oZJwBXvrZlkl", 0.01,
                "DAVIS/2017/trainval/Scribbles", ("bear",))]),
    "youtube": DataSet(
        "YouTubeVOS (train, valid, and all frames of valid)",
        "annotations: CC BY 4.0; the videos belong to their makers, for research use: see https://youtube-vos.org",
        ("Xu et al., YouTube-VOS: A Large-Scale Video Object Segmentation Benchmark, arXiv 1809.03327",),
        [Source("YouTube/train.zip", "13Eqw0gVK-AO5B-cqvJ203mZ2vzWck9s4", 9, "YouTube/train"),
         Source("YouTube/valid.zip", "1o586Wjya-f2ohxYf9C1RlRH-gkrzGS8t", 1.5, "YouTube/valid"),
         Source("YouTube/all_frames/valid.zip", "1rWQzZcMskgpEQOZdJPJ7eTmLCBEIIpEN", 7,
                "YouTube/all_frames/valid_all_frames", ("JPEGImages",))]),
}


def main() -> None:
    args = parse_arguments(__doc__, DATA_SETS)
    install_all([DATA_SETS[name] for name in dict.fromkeys(args.only)], args.root, args.yes)
    if "youtube" in args.only:
        from dataset.resize import resize_folder
        youtube = args.root / "YouTube"
        resize_folder(youtube / "train", youtube / "train_480p", 480, os.cpu_count())
    print(f"done: {args.root.resolve()}")


if __name__ == "__main__":
    run(main)
