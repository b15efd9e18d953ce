#!/usr/bin/env bash
# Make the images of docs/ with the weights that come with the code.
#
#   scripts/make_gallery.sh [DIR]       # DIR: intermediate files, default output/gallery
#
# Five minutes on two CPU cores. The bunny clip is downloaded with pip, unless it exists as DIR/demo/bunny.mp4.
set -euo pipefail
cd "$(dirname "$0")/.."
CODE=$PWD
export PYTHONPATH=$CODE
PYTHON=${PYTHON:-python}
mkdir -p "${1:-output/gallery}"
WORK=$(cd "${1:-output/gallery}" && pwd)
WEIGHTS=model/weights/lite.pth

# docs/overlay.jpg: the contact sheets of both clips of the demo (which uses published weights if they are in saves/).
"$PYTHON" -m scripts.demo "$WORK/demo"

# docs/correspondence.jpg: points on the objects of one image, and their correspondences in another.
rm -rf "$WORK/correspondence"
"$PYTHON" try_correspondence.py --src_image examples/00015.jpg --tar_image examples/00020.jpg --model $WEIGHTS \
    --points 185,165 255,160 365,150 --output "$WORK/correspondence"

# docs/training.jpg: the image that train.py logs to TensorBoard, of one sample.
"$PYTHON" -m scripts.make_dataset "$WORK/made" --kinds davis yv --photos --cutouts --videos 8 --frames 8
(cd "$WORK" && rm -rf log saves && "$PYTHON" "$CODE/train.py" --network lite --load_network "$CODE/$WEIGHTS" --id gallery \
    --stage 2 -b 1 -i 1 --seed 4 --num_workers 1 --davis_root made/DAVIS --yv_root made/YouTube)

"$PYTHON" - "$WORK" <<'PYTHON'
import io
import sys
from pathlib import Path

from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

work = Path(sys.argv[1])


def save(rows, name, width):
    """Stack images of equal width, resize the stack and write docs/<name>."""
    stack = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)))
    top = 0
    for row in rows:
        stack.paste(row, (0, top))
        top += row.height
    height = round(stack.height * width / stack.width)
    stack.resize((width, height), Image.Resampling.LANCZOS).save(f"docs/{name}", quality=75)
    size = Path("docs", name).stat().st_size
    print(f"docs/{name}: {width}x{height}, {size / 1000:.0f} KB")
    if size >= 150_000:
        sys.exit(f"docs/{name} is larger than 150 KB")


bunny, drawn = (Image.open(work / "demo" / name / "overlay/contact_sheet.png") for name in ("bunny", "drawn"))
rows = [drawn.crop((0, top, drawn.width, top + 180)) for top in (0, 360)]       # its first and last four frames
save([bunny, *rows], "overlay.jpg", 960)

source, target = (Image.open(work / "correspondence" / f"{name}.png") for name in ("source", "target"))
pair = Image.new("RGB", (source.width + target.width, source.height))
pair.paste(source, (0, 0))
pair.paste(target, (source.width, 0))
save([pair], "correspondence.jpg", pair.width)

events = EventAccumulator(str(next((work / "log").iterdir())), size_guidance={"images": 0}).Reload()
save([Image.open(io.BytesIO(events.Images("train/pairs")[0].encoded_image_string))], "training.jpg", 1200)
PYTHON
