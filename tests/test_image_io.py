"""Masks and frames as users have them."""
import os
import subprocess
import sys

import numpy as np
import pytest
from commands import ROOT
from PIL import Image, ImageOps

from dataset.image_io import fit_mask, read_frame, read_mask, smooth_edges, write_mask
from util.cli import InputError
from util.palette import davis_palette, palette_of

MASK = np.zeros((20, 30), np.uint8)
MASK[4:12, 4:12], MASK[4:12, 16:24] = 1, 38


def test_the_palette_is_that_of_davis():
    # The first colours, as the data set's own masks have them.
    assert davis_palette()[:27] == bytes([0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128, 128, 0, 128, 0, 128,
                                          128, 128, 128, 128, 64, 0, 0])
    assert davis_palette()[-3:] == bytes([224, 224, 192])


@pytest.mark.parametrize("convert", [
    lambda image: image,
    lambda image: Image.fromarray(np.asarray(image)),            # grey, the values themselves
    lambda image: image.convert("RGB"),                           # the palette's colours
    lambda image: image.convert("RGBA"),
    lambda image: Image.fromarray(np.asarray(image)).convert("RGB"),
    lambda image: Image.fromarray(np.asarray(image).astype(np.uint16)),
])
def test_masks_are_read_from_every_kind_of_image(tmp_path, convert):
    path = tmp_path / "mask.png"
    write_mask(path, MASK, davis_palette())
    convert(Image.open(path)).save(path)
    assert np.array_equal(read_mask(path), MASK)


def test_written_masks_keep_values_and_palette(tmp_path):
    write_mask(tmp_path / "palette.png", MASK, davis_palette())
    write_mask(tmp_path / "grey.png", MASK, None)
    assert palette_of(tmp_path / "palette.png") == davis_palette()
    assert palette_of(tmp_path / "grey.png") is None
    write_mask(tmp_path / "short.png", np.minimum(MASK, 1), bytes([0, 0, 0, 9, 8, 7]))
    assert palette_of(tmp_path / "short.png") == bytes([0, 0, 0, 9, 8, 7]) + davis_palette()[6:]
    write_mask(tmp_path / "black.png", MASK, bytes([0, 0, 0, 9, 8, 7] + 762 * [0]))
    write_mask(tmp_path / "later.png", MASK, bytes([0, 0, 0, 1, 1, 1, 2, 2, 2]))
    assert palette_of(*(tmp_path / f"{name}.png" for name in ("grey", "black", "later"))) == (
        bytes([0, 0, 0, 9, 8, 7, 2, 2, 2]) + davis_palette()[9:])
    assert Image.open(tmp_path / "grey.png").mode == "L"
    assert np.array_equal(np.asarray(Image.open(tmp_path / "grey.png")), MASK)


def save(path, array):
    Image.fromarray(array).save(path)
    return path


def nested(*values):
    """A mask (30, 30) with a square of each value inside that of the one before it, one pixel smaller on each side."""
    mask = np.zeros((30, 30), np.uint8)
    for inset, value in enumerate(values):
        mask[5 + inset:25 - inset, 5 + inset:25 - inset] = value
    return mask


def test_images_that_are_no_masks_are_refused(tmp_path):
    ramp = np.arange(256, dtype=np.uint8)[None].repeat(20, 0)
    with pytest.raises(InputError, match=r"ramp\.png: has 255 objects, the limit is 64;.*palette PNG"):
        read_mask(save(tmp_path / "ramp.png", ramp))
    noise = np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8)
    with pytest.raises(InputError, match=r"noise\.png: has colours that are not in the DAVIS palette \(such as #\w{6}"):
        read_mask(save(tmp_path / "noise.png", noise))
    deep = MASK.astype(np.uint16) * 1000
    with pytest.raises(InputError, match=r"deep\.png: has the label 38000"):
        read_mask(save(tmp_path / "deep.png", deep))


def test_every_colour_of_the_palette_is_its_label(tmp_path):
    labels = np.arange(256, dtype=np.uint8).reshape(4, 64)
    colours = np.frombuffer(davis_palette(), np.uint8).reshape(256, 3)[labels]
    for row, colours_of_row in zip(labels, colours, strict=True):        # at most 64 objects, blocks of 5x5 pixels
        path = save(tmp_path / "row.png", colours_of_row[None].repeat(5, 0).repeat(5, 1))
        assert np.array_equal(read_mask(path)[0, ::5], row)


def test_masks_that_lose_their_values_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"mask\.jpg: JPEG does not preserve labels"):
        read_mask(save(tmp_path / "mask.jpg", MASK * 6))
    clear = np.zeros((20, 30, 4), np.uint8)
    clear[..., :3], clear[4:12, 4:12, 3] = 255, 255
    with pytest.raises(InputError, match=r"clear\.png: the objects are only in the alpha channel"):
        read_mask(save(tmp_path / "clear.png", clear))
    with pytest.raises(InputError, match=r"smooth\.png: 4 of its 5 labels \(such as 50\) only form thin lines"):
        read_mask(save(tmp_path / "smooth.png", nested(50, 100, 150, 200, 255)))


def test_binary_masks_may_have_smooth_edges(tmp_path):
    for mask in (nested(50, 100, 150, 200, 255), np.arange(256, dtype=np.uint8)[None].repeat(20, 0)):
        for pixels in (mask, np.dstack([mask, 0 * mask, 0 * mask])):            # grey and red
            assert np.array_equal(read_mask(save(tmp_path / "smooth.png", pixels), binary=True), (mask > 0) * 255)


@pytest.mark.parametrize("values", [(128, 255), (85, 170, 255)])
def test_smooth_edges_of_few_levels_are_warned_about(tmp_path, capsys, values):
    mask = read_mask(save(tmp_path / "smooth.png", nested(*values)), show_warnings=True)
    assert np.unique(mask).tolist() == [0, *values]
    message = capsys.readouterr().err
    assert f"/smooth.png: {len(values) - 1} of its {len(values)} labels (such as {values[0]}) only form" in message
    assert "save the mask without smoothing (anti-aliasing), or threshold it" in message


def test_invisible_pixels_are_background(tmp_path, capsys):
    image = Image.fromarray(MASK)
    image.putpalette(davis_palette())
    rgba = np.array(image.convert("RGBA"))
    rgba[:, 14:, 3] = 0                                                  # the second object
    path = save(tmp_path / "hidden.png", rgba)
    assert np.unique(read_mask(path, show_warnings=True)).tolist() == [0, 1]
    assert capsys.readouterr().err == f"warning: {path}: 64 pixels with alpha 0 are treated as background\n"
    rgba[MASK == 38, :3] = 1, 2, 3                                       # no colour of the palette, and not seen
    assert np.unique(read_mask(save(path, rgba))).tolist() == [0, 1]
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("orientation", range(10))
def test_frames_are_rotated_on_request_only(orientation, tmp_path):
    image, exif = Image.fromarray(MASK), Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "rotated.png", exif=exif)
    assert np.array_equal(read_frame(tmp_path / "rotated.png")[..., 0], MASK)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "rotated.png")))
    assert np.array_equal(read_frame(tmp_path / "rotated.png", exif_rotation=True)[..., 0], expected)


@pytest.mark.parametrize(("tags", "shape"), [
    (b"II*\0\x08\0\0\0\x02\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"          # orientation 6
     b"\x13\x02\x07\0\x01\0\0\0\xff\xff\xff\xff\0\0\0\0", (30, 20)),
    (b"garbage", (20, 30))])
def test_other_damaged_exif_data_does_not_matter(tags, shape, tmp_path):
    Image.fromarray(MASK).save(tmp_path / "rotated.jpg", exif=b"Exif\0\0" + tags)
    assert read_frame(tmp_path / "rotated.jpg", exif_rotation=True).shape == (*shape, 3)
    Image.fromarray(MASK).save(tmp_path / "rotated.png", exif=tags)
    assert read_frame(tmp_path / "rotated.png", exif_rotation=True).shape == (*shape, 3)


@pytest.mark.parametrize("tags", [
    b"II*\0\x08\0\0\0\x02\0\x12\x01\x03\0",                                     # ends within a tag
    b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\xff\0\0\0\xff\xff\0\0\0\0\0\0"])        # points beyond the end
def test_damaged_exif_data_is_ignored_silently(tags, tmp_path):
    path = tmp_path / "damaged.jpg"
    Image.fromarray(MASK).save(path, exif=b"Exif\0\0" + tags)
    read = "import sys; from dataset.image_io import read_frame; read_frame(sys.argv[1], exif_rotation=True)"
    run = subprocess.run([sys.executable, "-c", read, path], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stderr == ""


@pytest.mark.parametrize("read", [read_frame, read_mask])
def test_broken_files_are_named(tmp_path, read):
    noise = np.random.default_rng(0).integers(0, 255, (200, 200), np.uint8)
    for suffix in ("jpg", "png"):
        path = save(tmp_path / f"cut.{suffix}", noise)
        path.write_bytes(path.read_bytes()[:5000])
        with pytest.raises(InputError, match=rf"cut\.{suffix}: cannot be read"):
            read(path)
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(InputError, match=r"text\.png: not an image"):
        read(tmp_path / "text.png")
    (tmp_path / "empty.png").touch()
    with pytest.raises(InputError, match=r"empty\.png"):
        read(tmp_path / "empty.png")
    with pytest.raises(InputError, match=r"none\.png: no such file"):
        read(tmp_path / "none.png")
    os.mkfifo(tmp_path / "fifo.png")
    with pytest.raises(InputError, match=r"fifo\.png: not a regular file"):
        read(tmp_path / "fifo.png")


def test_large_frames_are_read_without_warnings(tmp_path):
    path = save(tmp_path / "large.png", np.zeros((100, 200), np.uint8))
    code = "import sys, PIL.Image, dataset.image_io as io; PIL.Image.MAX_IMAGE_PIXELS = 15000; " \
           "print(io.read_frame(io.Path(sys.argv[1])).shape)"
    run = subprocess.run([sys.executable, "-c", code, path], cwd=ROOT, capture_output=True, text=True, check=True)
    assert (run.stdout, run.stderr) == ("(100, 200, 3)\n", "")


def test_deep_frames_are_refused(tmp_path):
    with pytest.raises(InputError, match="save it with 8 bits"):
        read_frame(save(tmp_path / "deep.png", MASK.astype(np.uint16)))


def test_nearly_fitting_masks_are_resized():
    wide = np.repeat(np.arange(1, 5, dtype=np.uint8)[:, None], 427, 1).repeat(120, 0)      # 480 x 427
    fitted = fit_mask("m.png", wide, 480, 428)
    assert fitted.shape == (480, 428)
    assert np.array_equal(fitted[:, 0], wide[:, 0])
    assert fit_mask("m.png", wide, 480, 427) is wide
    with pytest.raises(InputError, match=r"m\.png: the mask is 427x480 pixels, its frame 640x480"):
        fit_mask("m.png", wide, 480, 640)


def test_smooth_edges_are_told_from_objects():
    assert smooth_edges(nested(50, 100, 150, 200, 255), palette=True) == [50, 100, 150, 200]
    blocks = np.kron(np.arange(16).reshape(4, 4), np.ones((5, 5), int))
    assert smooth_edges(blocks, palette=False) == []
    leash = MASK.copy()
    leash[8, 12:16] = 60                                             # thin, but its value lies above its neighbours'
    assert smooth_edges(MASK, palette=False) == smooth_edges(leash, palette=False) == []
    assert smooth_edges(nested(128, 255), palette=False) == [128]
    assert smooth_edges(nested(1, 2), palette=True) == []                # palette masks are not interpolated
