"""What can be downloaded: the published weights and the data sets, where they are, and on whose terms."""
from __future__ import annotations

from typing import NamedTuple


class DataSet(NamedTuple):
    """What to tell before a data set is downloaded."""
    name: str
    terms: str
    citations: tuple[str, ...]


class Part(NamedTuple):
    """One archive, and the folder that it becomes.

    Attributes:
        data_set: a key of `DATA_SETS`.
        folder: below the root.
        archive: below the root: where it is put, by this code or by a person.
        holds: names in the folder, by which it is found in the archive, at whatever depth.
        named: its own name in the archive, where it belongs in a folder that another part makes.
    """
    data_set: str
    folder: str
    archive: str
    drive_id: str
    holds: tuple[str, ...]
    named: str = ""


WEIGHTS = {             # by the stages of their training: the file's name, its id
    "s012": ("propagation_model.pth", "19dfbVDndFkboGLHESi8DGtuxF1B21Nm8"),
    "s02": ("propagation_model_s02.pth", "12jw9b30o-mh23bXzsL0vp24UVhFko_Py"),
}

DATA_SETS = {
    "static": DataSet(
        "Static images: FSS-1000, DUTS, ECSSD, BIG and HRSOD",
        "five data sets made for research, each on its authors' own terms: see their pages",
        ("Li et al., FSS-1000: A 1000-Class Dataset for Few-Shot Segmentation, CVPR 2020",
         "Wang et al., Learning to Detect Salient Objects with Image-level Supervision (DUTS), CVPR 2017",
         "Shi et al., Hierarchical Image Saliency Detection on Extended CSSD (ECSSD), TPAMI 2016",
         "Cheng et al., CascadePSP: Toward Class-Agnostic and Very High-Resolution Segmentation (BIG), CVPR 2020",
         "Zeng et al., Towards High-Resolution Salient Object Detection (HRSOD), ICCV 2019")),
    "davis": DataSet(
        "DAVIS 2016 and 2017 (trainval, test-dev, scribbles)",
        "see https://davischallenge.org and the README and SOURCES files that come with it",
        ("Perazzi et al., A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation, CVPR 2016",
         "Pont-Tuset et al., The 2017 DAVIS Challenge on Video Object Segmentation, arXiv 1704.00675",
         "Caelles et al., The 2018 DAVIS Challenge on Video Object Segmentation (scribbles), arXiv 1803.00557")),
    "youtube": DataSet(
        "YouTubeVOS (train, valid, and all frames of valid)",
        "annotations: Creative Commons Attribution 4.0; the videos are their makers', for research; "
        "see https://youtube-vos.org",
        ("Xu et al., YouTube-VOS: A Large-Scale Video Object Segmentation Benchmark, arXiv 1809.03327",)),
    "bl30k": DataSet(
        "BL30K, 30,000 rendered videos",
        "rendered with models of ShapeNet, so on ShapeNet's terms (https://shapenet.org): research and teaching, "
        "nothing commercial",
        ("Cheng et al., Modular Interactive Video Object Segmentation, CVPR 2021",
         "Chang et al., ShapeNet: An Information-Rich 3D Model Repository, arXiv 1512.03012")),
}

FRAMES = ("Annotations", "JPEGImages")
PARTS = (
    Part("static", "static", "static_data.zip", "1wUJq3HcLdN-z1t4CsUhjeZ9BVDb9YKLd", ("DUTS-TR", "fss")),
    Part("davis", "DAVIS/2016", "DAVIS/DAVIS-data.zip", "198aRlh5CpAoFz0hfRgYbiNenn_K8DxWD", FRAMES),
    Part("davis", "DAVIS/2017/trainval", "DAVIS/2017/DAVIS-2017-trainval-480p.zip",
         "1kiaxrX_4GuW6NmiVuKGSGVoKGWjOdp6d", (*FRAMES, "ImageSets")),
    Part("davis", "DAVIS/2017/test-dev", "DAVIS/2017/DAVIS-2017-test-dev-480p.zip",
         "1fmkxU2v9cQwyb62Tj1xFDdh2p4kDsUzD", (*FRAMES, "ImageSets")),
    Part("davis", "DAVIS/2017/trainval/Scribbles", "DAVIS/2017/DAVIS-2017-scribbles-trainval.zip",
         "1JzIQSu36h7dVM8q0VoE4oZJwBXvrZlkl", (), named="Scribbles"),
    Part("youtube", "YouTube/train", "YouTube/train.zip", "13Eqw0gVK-AO5B-cqvJ203mZ2vzWck9s4", FRAMES),
    Part("youtube", "YouTube/valid", "YouTube/valid.zip", "1o586Wjya-f2ohxYf9C1RlRH-gkrzGS8t", FRAMES),
    Part("youtube", "YouTube/all_frames/valid_all_frames", "YouTube/all_frames/valid.zip",
         "1rWQzZcMskgpEQOZdJPJ7eTmLCBEIIpEN", ("JPEGImages",)),
)

SEGMENT_BYTES = 115 * 10 ** 9       # about, of each
SEGMENTS = {                        # of BL30K
    "a": "1z9V5zxLOJLNt1Uj7RFqaP2FZWKzyXvVc", "b": "11-IzgNwEAPxgagb67FSrBdzZR7OKAEdJ",
    "c": "1ZfIv6GTo-OGpXpoKen1fUvDQ0A_WoQ-Q", "d": "1G4eXgYS2kL7_Cc0x3N1g1x7Zl8D_aU_-",
    "e": "1Y8q0V_oBwJIY27W_6-8CD1dRqV2gNTdE", "f": "1nawBAazf_unMv46qGBHhWcQ4JXZ5883r",
}
