"""--report, --baseline and --zip of the benchmark scripts, and --report of propagate.py, on drawn videos."""
import base64
import html
import io
import json
import re
import shutil
import sys
import zipfile
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import test_eval_scripts
from PIL import Image
from test_eval_scripts import HEIGHT, VIDEOS, WIDTH, draw, masks_in

import propagate as propagate_script
from dataset.image_io import read_mask, write_mask
from dataset.video import Video
from dataset.video_reader import ImageFrames
from inference import propagation, report
from inference.report import chosen_frames, crop_box, error_classes, frame_means, write_report
from inference.scoring import FrameScore, ObjectScore, difference, read_csv, score_video, table, write_csv
from model.defaults import LITE_WEIGHTS
from util.cli import InputError
from util.palette import davis_palette

davis16, davis17, youtube, lite, evaluate, evaluate16, finished16 = (
    getattr(test_eval_scripts, name) for name in ("davis16", "davis17", "youtube", "lite", "evaluate", "evaluate16",
                                                  "finished16"))


class Page(HTMLParser):
    """The tags, attributes and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.open = [], "", []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data

    def images(self):
        return [attributes["src"] for tag, attributes in self.tags if tag == "img"]


def scored(tmp_path, name="video", ground_truth=(1, 1, 1, 1, 1), predicted=(1, 1, 1, 1, 1), frames=None):
    """A video and its scores; label maps are given by the value of a square. The predicted squares are moved by two."""
    folder = tmp_path / name
    for kind, values, shift in (("images", ground_truth, 0), ("masks", ground_truth, 0), ("output", predicted, 2)):
        (folder / kind).mkdir(parents=True)
        for index, value in enumerate(values):
            mask = np.zeros((HEIGHT, WIDTH), np.uint8)
            mask[20 + shift:40, 30:60] = value
            write_mask(folder / kind / f"{index:05d}.png", mask, davis_palette())
    frames = ImageFrames(sorted((folder / "images").iterdir()))
    video = Video(name, frames, {0: folder / "masks/00000.png"}, folder / "masks")
    return video, score_video(video, folder / "output")


def test_values_of_the_frames_have_the_means_of_the_table(tmp_path):
    video, scores = scored(tmp_path, predicted=(1, 1, 0, 1, 1))
    row, = scores
    assert [frame.index for frame in row.frames] == [1, 2, 3]
    assert [frame.j for frame in row.frames] == pytest.approx([90, 0, 90])
    assert np.mean([frame.j for frame in row.frames]) == pytest.approx(row.j, abs=1e-9)
    assert np.mean([frame.f for frame in row.frames]) == pytest.approx(row.f, abs=1e-9)


@pytest.mark.parametrize(("direction", "indices"), [("forward", [3]), ("backward", [1]), ("both", [1, 3])])
def test_frames_that_a_direction_reaches(tmp_path, direction, indices):
    video, _ = scored(tmp_path)
    video = Video("v", video.frames, {2: video.masks[0]}, video.ground_truth)
    for index in range(5):
        if index not in (*indices, 2):
            (tmp_path / f"video/output/{index:05d}.png").unlink()
    row, = score_video(video, tmp_path / "video/output", direction)
    assert [frame.index for frame in row.frames] == indices
    assert row.j == pytest.approx(90)


def write_maps(folder, maps):
    folder.mkdir()
    for index, (first, second) in enumerate(maps):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        mask[10:30, 10:30], mask[35:60, 50:90] = first, second
        write_mask(folder / f"{index:05d}.png", mask, davis_palette())


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_each_object_has_its_own_frames(tmp_path, direction):
    """It is predicted on the frame of its input mask, but does not count there."""
    step = -1 if direction == "backward" else 1
    write_maps(tmp_path / "ground_truth", [(1, 2)] * 6)
    write_maps(tmp_path / "inputs", [(1, 0), (0, 2)])
    write_maps(tmp_path / "output", [(1, 2), (1, 2), (1, 2), (0, 2), (0, 2), (0, 0)][::-step])
    frames = ImageFrames(sorted((tmp_path / "ground_truth").iterdir()))
    inputs = {range(6)[::-step][index]: tmp_path / f"inputs/0000{place}.png" for place, index in enumerate((2, 4))}
    first, second = score_video(Video("v", frames, inputs, tmp_path / "ground_truth"), tmp_path / "output", direction)
    expected = ([1], [1, 2, 3]) if direction == "backward" else ([4], [2, 3, 4])
    assert ([frame.index for frame in first.frames], [frame.index for frame in second.frames]) == expected
    assert first[2:4] == second[2:4] == (100, 100)


def test_objects_without_an_input_mask_are_background_in_images(tmp_path):
    write_maps(tmp_path / "ground_truth", [(1, 2)] * 4)
    write_maps(tmp_path / "output", [(1, 0)] * 4)
    write_maps(tmp_path / "inputs", [(1, 0)])
    write_maps(tmp_path / "images", [(0, 0)] * 4)
    video = Video("v", ImageFrames(sorted((tmp_path / "images").iterdir())), {0: tmp_path / "inputs/00000.png"},
                  tmp_path / "ground_truth")
    scores = score_video(video, tmp_path / "output")
    write_report(tmp_path / "report.html", "", [(video, tmp_path / "output")], scores, {}, {})
    source = Page((tmp_path / "report.html").read_text()).images()[0]
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2])))).astype(int)
    assert pixels[..., 1].max() > 200           # green, and nothing blue
    assert (pixels[..., 2] - pixels[..., 0]).max() < 80


def test_report_of_a_run(evaluate16, finished16, tmp_path):
    out = shutil.copytree(finished16, tmp_path / "out")
    shutil.rmtree(out / "cow")
    for name, seconds in (("bear", 3), ("dog", 1)):             # finished by earlier runs, on another machine
        path = out / f".settings/{name}.json"
        run = {"device": "cuda", "processes": 2, "seconds": seconds, "frames": 100, "memory": {"GPU": seconds * 1e9}}
        path.write_text(json.dumps(json.loads(path.read_text()) | {"run": run}))
    path.write_text(json.dumps({name: value for name, value in json.loads(path.read_text()).items() if name != "run"}))
    evaluate16(out, "--report")
    assert "speed and memory are those of 2 of 3 videos" in Page((out / "report.html").read_text()).text
    path.write_text(json.dumps(json.loads(path.read_text()) | {"run": run}))
    printed, _ = evaluate16(out, "--report")
    assert f"report: {out}/report.html" in printed
    text = (out / "report.html").read_text()
    page = Page(text)
    means = dict(line.split()[:2] for line in printed.splitlines() if line.split()[0] in (*VIDEOS, "overall"))
    assert len(means) == 4
    for name, mean in means.items():
        assert re.search(rf">{name}(</a>)?</td><td>{mean}</td>", text)
    assert len(re.findall("<svg ", text)) == 3
    for name in VIDEOS:             # two frames count
        assert text.count('alt="worst frame 0000') == 3
        assert f" of {name}" in text
    for source in page.images():
        image = Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/jpeg;base64,"))))
        assert image.size == (400, round(400 * HEIGHT / WIDTH))
    for part in ("crc32:", "kernel_sigma", "eval_davis_2016 --size -1"):
        assert part in page.text
    for name, figure in (("speed per process, 2 on cuda", "50.00 frames/s"), ("speed on cpu", r"\d+\.\d\d frames/s"),
                         ("peak memory, GPU", "3.00 GB"), ("peak memory, RAM", r"\d\.\d\d GB")):
        assert re.search(f"<dt>{name}</dt><dd>{figure}</dd>", text)
    links = {value for _, attributes in page.tags for name, value in attributes.items()
             if name in ("href", "src", "xlink:href") and not value.startswith(("#", "data:image/jpeg"))}
    assert not links
    assert not re.search(r"url\((?!#)|@import|<script|<link", text)
    identifiers = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))


def test_names_are_escaped(tmp_path):
    evil = 'a<b>&"{}'
    video, scores = scored(tmp_path, evil)
    write_report(tmp_path / "report.html", evil, [(video, tmp_path / evil / "output")], scores, {evil: evil},
                 {evil: evil}, [ObjectScore(evil + "2", 1, 1, 1)], [evil])
    text = (tmp_path / "report.html").read_text()
    assert evil not in text
    assert text.count(html.escape(evil)) >= 10
    Page(text)


def test_names_need_not_be_utf8(tmp_path):
    video, (row,) = scored(tmp_path)
    video, row = replace(video, name="\udcff"), row._replace(video="\udcff")
    write_report(tmp_path / "report.html", "\udcff", [(video, tmp_path / "video/output")], [row], {"a": "\udcff"}, {})
    page = Page((tmp_path / "report.html").read_text())
    assert len(page.images()) == len(row.frames)


def test_a_report_of_many_sequences_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "MAX_IMAGES", 11)
    video, (row,) = scored(tmp_path)
    names = [f"v{index}" for index in range(5)]
    videos = [(Video(name, video.frames, video.masks, video.ground_truth), tmp_path / "video/output") for name in names]
    write_report(tmp_path / "report.html", "", videos, [row._replace(video=name) for name in names], {}, {})
    page = Page((tmp_path / "report.html").read_text())
    assert len(page.images()) == 2 * len(row.frames)
    assert "Frames are shown for the 2 lowest sequences only." in page.text


def test_worst_frames_are_not_neighbours():
    frames = [FrameScore(index, 100 - index, 100) for index in range(40)]
    assert [(kind, frame.index) for kind, frame in chosen_frames(frames)] == [
        ("worst", 39), ("worst", 35), ("worst", 31), ("best", 0)]
    assert chosen_frames(frames[:1]) == [("best", frames[0])]


def test_frame_means_are_over_the_objects_of_a_frame():
    rows = [ObjectScore("v", 1, 0, 0, (FrameScore(1, 50, 60), FrameScore(2, 70, 80))),
            ObjectScore("v", 2, 0, 0, (FrameScore(2, 90, 0),))]
    assert frame_means(rows) == [(1, 50, 60), (2, 80, 40)]


def test_classes_of_pixels_and_their_crop():
    classes = error_classes(np.array([[0, 1, 1, 0, 1]]), np.array([[0, 1, 0, 1, 2]]))
    assert classes.tolist() == [[0, 1, 2, 3, 4]]
    classes = np.zeros((100, 200), np.uint8)
    assert crop_box(classes) == (0, 0, 200, 100)
    classes[40:80, 190:] = 1
    assert crop_box(classes) == (80, 30, 200, 90)       # one and a half times the height
    classes[0, 0] = 1
    assert crop_box(classes) == (0, 0, 200, 100)


def test_a_baseline(evaluate16, finished16, tmp_path):
    out = shutil.copytree(finished16, tmp_path / "out")
    lines = (out / "scores.csv").read_text().splitlines()
    (bear,), score = [row for row in read_csv(out / "scores.csv") if row.video == "bear"], "lite,crc32:00000000"
    (tmp_path / "before.csv").write_text("\n".join([
        lines[0], f"bear,255,0,{bear.j - 2:.3f},{bear.f + 1:.3f},{score}", lines[2], f"old,255,1,1,1,{score}"]))
    printed, _ = evaluate16(out, "--report", "--baseline", tmp_path / "before.csv")
    compared = {line.split()[0]: line.split()[-3:] for line in printed.splitlines()}
    assert compared["bear"] == ["-0.5", "+2.0", "-1.0"] or compared["bear"] == ["+0.5", "+2.0", "-1.0"]
    assert compared["cow"] == ["+0.0", "+0.0", "+0.0"]
    assert compared["dog"] == ["-", "-", "-"]
    assert compared["overall"][1:] == ["+1.0", "-0.5"]
    page = Page((out / "report.html").read_text())
    for line in ("not in the baseline, so not compared: dog", "not in this run, so not compared: old"):
        assert line in printed
        assert line in page.text
    assert '<small class="better">+2.0</small>' in (out / "report.html").read_text()


def test_differences_are_over_common_objects():
    ours = [ObjectScore("a", 1, 80, 60), ObjectScore("a", 2, 10, 10), ObjectScore("b", 1, 50, 50)]
    theirs = [ObjectScore("a", 1, 70, 60), ObjectScore("b", 1, 50, 40), ObjectScore("c", 1, 0, 0)]
    assert difference(ours, theirs).tolist() == [5, 5, 5]
    assert np.isnan(difference(ours[1:2], theirs)).all()
    assert table(ours, theirs).splitlines()[-2:] == ["not in the baseline, so not compared: a (object 2)",
                                                     "not in this run, so not compared: c"]


@pytest.mark.parametrize(("content", "message"), [
    ("", "has no scores"), ("sequence,object\na,1\n", "not a scores.csv"), ("\x00", "not a scores.csv|has no scores"),
    ("sequence,object,J&F,J,F\na,1,2,3,x\n", "not a scores.csv"),
    ("sequence,object,J&F,J,F\na,1,2,3,inf\n", "a, object 1: has scores that are not between 0 and 100"),
    ("sequence,object,J&F,J,F\na,2,2,3,4\na,2,2,3,4\n", "a, object 2: listed twice")])
def test_an_invalid_baseline(tmp_path, content, message):
    with pytest.raises(InputError, match="no such file"):
        read_csv(tmp_path / "scores.csv")
    (tmp_path / "scores.csv").write_text(content)
    with pytest.raises(InputError, match=message):
        read_csv(tmp_path / "scores.csv")
    rows = [ObjectScore("a,b", 3, 1.5, 2.5)]
    write_csv(rows, tmp_path / "scores.csv", "lite", "0")
    assert read_csv(tmp_path / "scores.csv") == rows


def test_flags_that_exclude_each_other_and_missing_packages(evaluate16, monkeypatch, tmp_path):
    for flags in (("--report",), ("--baseline", tmp_path / "nowhere.csv")):
        _, err = evaluate16(tmp_path / "out", "--no_score", *flags, code=2)
        assert err == "error: --report and --baseline need the scores; leave out --no_score\n"
    monkeypatch.delitem(sys.modules, "inference.report")
    for name in ("matplotlib", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, name, None)
    _, err = evaluate16(tmp_path / "out", "--report", code=2)
    assert err == "error: --report needs matplotlib; install it with pip install -r requirements-extras.txt\n"
    assert not (tmp_path / "out").exists()


@pytest.fixture
def propagate(lite, monkeypatch, capsys, tmp_path):
    """Calls propagate.py with ground truth on a drawn clip."""
    draw(tmp_path / "clip", "v", tmp_path / "clip/images", tmp_path / "clip/masks", seed=1, frames=6)

    def propagate(*flags, masks=tmp_path / "clip/masks/v/00000.png", truth=tmp_path / "clip/masks/v"):
        monkeypatch.setattr(propagation, "load_for_propagation", lambda path, device: lite)
        monkeypatch.setattr(sys, "argv", [
            "propagate.py", "--images", str(tmp_path / "clip/images/v"), "--masks", str(masks), "--size", "-1",
            "--model", "lite", "--truth", str(truth), "--output", str(tmp_path / "out"), *flags])
        propagate_script.main()
        return capsys.readouterr().out
    return propagate


def test_ground_truth_of_a_clip(propagate, tmp_path):
    printed = propagate("--report", "--direction", "both")
    video = Video("v", ImageFrames(sorted((tmp_path / "clip/images/v").iterdir())),
                  {0: tmp_path / "clip/masks/v/00000.png"}, tmp_path / "clip/masks/v")
    scores = score_video(video, tmp_path / "out", "both")
    assert table(scores) in printed
    assert printed.endswith(f"report: {tmp_path}/out/report/report.html\n")
    text = Page((tmp_path / "out/report/report.html").read_text()).text
    assert "object 1" in text
    assert "object 2" in text
    with pytest.raises(InputError, match="holds masks already"):
        propagate()
    # The baseline may be a report that this run replaces.
    printed = propagate("--overwrite", "--report", "--no_km", "--baseline", str(tmp_path / "out/report/scores.csv"))
    expected = table(score_video(video, tmp_path / "out", "forward"), scores)
    assert expected in printed
    text = Page((tmp_path / "out/report/report.html").read_text()).text
    assert "the small numbers are the differences to the baseline" in text
    propagate("--overwrite")
    assert not (tmp_path / "out/report").exists()


def test_unusable_ground_truth_of_a_clip(propagate, tmp_path):
    with pytest.raises(InputError, match="nowhere: no such folder"):
        propagate(truth=tmp_path / "nowhere")
    with pytest.raises(InputError, match="scores need ground-truth masks of more than two frames, with names such as "
                                         "00000.png"):
        propagate(truth=tmp_path / "clip/images/v")
    assert not (tmp_path / "out").exists()
    shutil.copytree(tmp_path / "clip/masks/v", tmp_path / "broken")
    Image.new("P", (9, 9)).save(tmp_path / "broken/00002.png")
    with pytest.raises(InputError, match="the masks are complete, but the score table was not written: .*9x9 pixels"):
        propagate("--report", truth=tmp_path / "broken")
    assert len(masks_in(tmp_path / "out")) == 6
    assert "9x9 pixels" in Page((tmp_path / "out/report/report.html").read_text()).text


@pytest.mark.parametrize("flags", [["--report"], ["--baseline", "x"]])
def test_report_of_a_clip_needs_ground_truth(flags, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["propagate.py", "--images", "x", "--masks", "x", *flags])
    with pytest.raises(InputError, match="--report and --baseline need the scores; add --ground_truth"):
        propagate_script.main()


def contents(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: Image.open(io.BytesIO(archive.read(name))) for name in archive.namelist()}


def davis(evaluate, root, *flags, **options):
    return evaluate("eval_davis", "--davis", root.parent, "--model", LITE_WEIGHTS, "--output", root / "out", *flags,
                    **options)


def test_zip_of_davis(evaluate, davis17, tmp_path):
    first = davis17 / "Annotations/480p/pair/00000.png"
    write_mask(first, np.array([0, 4, 9], np.uint8)[read_mask(first)], davis_palette())
    printed, _ = davis(evaluate, davis17, "--zip", tmp_path / "new/pair.zip")
    assert printed.endswith(f"zip: {tmp_path}/new/pair.zip\n")
    masks = contents(tmp_path / "new/pair.zip")
    assert list(masks) == [f"pair/{index:05d}.png" for index in range(4)]
    for name, image in masks.items():
        written = read_mask(davis17 / "out" / name)
        assert set(np.unique(written)) <= {0, 1, 2}
        assert np.array_equal(np.array([0, 4, 9])[written], np.asarray(image))
        assert image.mode == "P"
        assert bytes(image.getpalette()).ljust(768, b"\0") == davis_palette()
    assert set(np.unique(masks["pair/00000.png"])) == {0, 4, 9}
    before = (tmp_path / "new/pair.zip").read_bytes()
    davis(evaluate, davis17, "--zip", tmp_path / "new/pair.zip")
    assert (tmp_path / "new/pair.zip").read_bytes() == before
    with zipfile.ZipFile(tmp_path / "new/pair.zip") as archive:
        assert {entry.external_attr >> 16 for entry in archive.infolist()} == {0o644}


def test_masks_that_cannot_be_submitted(evaluate, davis17, monkeypatch, tmp_path):
    davis(evaluate, davis17)
    out = davis17 / "out/pair"
    mask = read_mask(out / "00001.png").astype(np.uint8)
    mask[0, 0] = 3
    write_mask(out / "00001.png", mask, davis_palette())
    write_mask(out / "00002.png", mask[:-1], davis_palette())
    write_mask(out / "00003.png", mask % 3, None)
    (out / "00000.png").write_bytes(b"")
    _, err = davis(evaluate, davis17, "--no_score", "--zip", tmp_path / "pair.zip", code=2)
    assert err.splitlines() == [
        f"error: {out}: 1 mask missing or damaged: 00000",
        f"error: {out}: 1 mask with objects that are in no input mask: 00001 (object 3)",
        f"error: {out}: 1 mask not of the frames' size {WIDTH}x{HEIGHT}: 00002",
        f"error: {out}: 1 mask without a palette: 00003",
        f"error: {tmp_path}/pair.zip: not written, since not all masks can be submitted"]
    assert not list(tmp_path.glob("*.zip*"))
    with zipfile.ZipFile(tmp_path / "pair.zip", "w"):
        pass
    _, err = davis(evaluate, davis17, "--no_score", "--zip", tmp_path / "pair.zip", code=2)
    assert err.endswith("not all masks can be submitted; the file there is of an earlier run\n")


def test_a_zip_is_not_written_over_another_file(evaluate, davis17, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    for path in (tmp_path / "thesis.txt", tmp_path):
        _, err = davis(evaluate, davis17, "--zip", path, code=2)
        assert f"{path}: exists and is not a zip file; choose another --zip" in err
    assert not (davis17 / "out").exists()


@pytest.mark.parametrize("requested", [None, ["00002", "00004"]])
def test_zip_of_youtube(evaluate, youtube, requested):
    arguments = ("eval_youtube", "--yv", youtube, "--model", "lite", "--output", youtube / "out", "--zip",
                 youtube / "yv.zip")
    meta = youtube / "valid/meta.json"
    if requested:
        meta.write_text(json.dumps({"videos": {"late": {"objects": {
            "7": {"frames": requested, "category": "cow"}, "3": {"frames": requested[1:]}}}}}))
    evaluate(*arguments)
    masks = contents(youtube / "yv.zip")
    names = requested or ["00001", "00002", "00003", "00004"]
    assert list(masks) == [f"Annotations/late/{name}.png" for name in names]
    for name in names:
        written = read_mask(youtube / f"out/late/{name}.png")
        assert np.array_equal(np.asarray(masks[f"Annotations/late/{name}.png"]), written)
    if requested:
        for content, message in (({"videos": {"other": {"objects": {}}}}, "names 1 video without frames or masks, such "
                                                                         "as other"),
                                 ({"videos": {"late": {"objects": {"7": {"frames": [2]}}}}}, "not the meta.json of"),
                                 ({"videos": {}}, "yv.zip: no frame is requested, so there is nothing to submit"),
                                 ({"videos": []}, "not the meta.json of YouTubeVOS")):
            meta.write_text(json.dumps(content))
            _, err = evaluate(*arguments, code=2)
            assert message in err
        meta.write_text(json.dumps({"videos": {"late": {"objects": {"7": {"frames": ["00000"]}}}}}))
        _, err = evaluate(*arguments, code=2)
        assert "1 mask missing or damaged: 00000" in err
