"""Masks and frames as users have them."""
import numpy as np
import pytest
from PIL import Image

from dataset.image_io import fit_mask, has_smooth_edges, read_frame, read_mask, write_mask
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
    assert Image.open(tmp_path / "grey.png").mode == "L"
    assert np.array_equal(np.asarray(Image.open(tmp_path / "grey.png")), MASK)


def save(path, array):
    Image.fromarray(array).save(path)
    return path


def test_pictures_are_no_masks(tmp_path):
    ramp = np.arange(256, dtype=np.uint8)[None].repeat(20, 0)
    with pytest.raises(InputError, match=r"ramp\.png: holds 256 different values.*palette PNG"):
        read_mask(save(tmp_path / "ramp.png", ramp))
    noise = np.random.default_rng(0).integers(0, 255, (20, 20, 3), np.uint8)
    with pytest.raises(InputError, match=r"noise\.png: an RGB picture of \d+ colours"):
        read_mask(save(tmp_path / "noise.png", noise))
    deep = MASK.astype(np.uint16) * 1000
    with pytest.raises(InputError, match=r"deep\.png: holds the value 38000"):
        read_mask(save(tmp_path / "deep.png", deep))


def test_masks_that_lose_their_values_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"mask\.jpg: a JPEG does not keep the values"):
        read_mask(save(tmp_path / "mask.jpg", MASK * 6))
    clear = np.zeros((20, 30, 4), np.uint8)
    clear[..., :3], clear[4:12, 4:12, 3] = 255, 255
    with pytest.raises(InputError, match=r"clear\.png: the objects are in its transparency only"):
        read_mask(save(tmp_path / "clear.png", clear))
    smooth = np.zeros((30, 30), np.uint8)
    for inset, value in enumerate((50, 100, 150, 200, 255)):
        smooth[5 + inset:25 - inset, 5 + inset:25 - inset] = value
    with pytest.raises(InputError, match=r"smooth\.png: most of its 5 values are thin lines"):
        read_mask(save(tmp_path / "smooth.png", smooth))


def test_frames_are_turned_as_viewers_show_them(tmp_path):
    image, exif = Image.fromarray(MASK), Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert read_frame(tmp_path / "turned.jpg").shape == (30, 20, 3)


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


def test_deep_frames_are_refused(tmp_path):
    with pytest.raises(InputError, match="8-bit"):
        read_frame(save(tmp_path / "deep.png", MASK.astype(np.uint16)))


def test_nearly_fitting_masks_are_resized():
    wide = np.repeat(np.arange(1, 5, dtype=np.uint8)[:, None], 427, 1).repeat(120, 0)      # 480 x 427
    fitted = fit_mask("m.png", wide, 480, 428)
    assert fitted.shape == (480, 428)
    assert np.array_equal(fitted[:, 0], wide[:, 0])
    assert fit_mask("m.png", wide, 480, 427) is wide
    with pytest.raises(InputError, match=r"m\.png: the mask is 427x480 pixels, its frame 640x480"):
        fit_mask("m.png", wide, 480, 640)


def test_smooth_edges_are_noticed():
    assert not has_smooth_edges(MASK)
    smooth = np.zeros((30, 30), np.uint8)
    for inset, value in enumerate((50, 100, 150, 200, 255)):
        smooth[5 + inset:25 - inset, 5 + inset:25 - inset] = value
    assert has_smooth_edges(smooth)
    many = np.kron(np.arange(16).reshape(4, 4), np.ones((5, 5), int))
    assert not has_smooth_edges(many)
