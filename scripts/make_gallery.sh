#!/usr/bin/env bash
# Make the images of docs/ with the weights that come with the code.
#
#   scripts/make_gallery.sh [DIR]       # DIR: intermediate files, default output/gallery
#
# Ten minutes on two CPU cores. Chromium and requirements-dev.txt are needed. The bunny clip is downloaded with pip, unless it exists as DIR/demo/bunny.mp4.
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
    --points 185,165 255,160 350,180 --output "$WORK/correspondence"

# docs/training.jpg: the image that train.py logs to TensorBoard, of one sample.
"$PYTHON" -m scripts.make_dataset "$WORK/made" --kinds davis yv --photos --cutouts --videos 8 --frames 8
(cd "$WORK" && rm -rf log saves && "$PYTHON" "$CODE/train.py" --network lite --load_network "$CODE/$WEIGHTS" --id gallery \
    --stage 2 -b 1 -i 1 --seed 4 --num_workers 1 --davis_root made/DAVIS --yv_root made/YouTube)

# docs/failures.jpg: the worst frames of the drawn videos with the lowest scores, from a report.
"$PYTHON" -m scripts.make_dataset "$WORK/drawn" --kinds davis --photos --cutouts --videos 8 --frames 24 --height 320
"$PYTHON" eval_davis.py --davis "$WORK/drawn/DAVIS/2017" --model lite --output "$WORK/scores" --overwrite --report

# docs/annotate.jpg: the page of annotate.py in Chromium, before and after propagation.
rm -rf "$WORK/annotation"
"$PYTHON" - "$WORK" <<'PYTHON'
import re
import shutil
import subprocess
import sys

from playwright.sync_api import sync_playwright

work = sys.argv[1]
server = subprocess.Popen([sys.executable, "annotate.py", "--video", f"{work}/demo/bunny.mp4", "--model", "lite",
                           "--output", f"{work}/annotation", "--no_browser"], stdout=subprocess.PIPE, text=True)
address = next(re.search(r"http://\S+", line).group() for line in server.stdout if "page:" in line)
with sync_playwright() as playwright:
    page = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"]).new_page(
        viewport={"width": 1280, "height": 800})
    page.goto(address)

    def drag(*points):
        """Draw through points of the frame, 1280x720, and wait until the mask is saved."""
        box = page.locator("#frame").bounding_box()
        for index, (x, y) in enumerate(points):
            page.mouse.move(box["x"] + x * box["width"] / 1280, box["y"] + y * box["height"] / 720, steps=8)
            if index == 0:
                page.mouse.down()
        page.mouse.up()
        page.wait_for_timeout(100)
        page.wait_for_selector("#busy", state="hidden")
        page.wait_for_selector('#status[data-saved="true"]')

    def show(index, file):
        page.fill("#frame-number", str(index))
        page.keyboard.press("Enter")
        page.wait_for_selector(f'#stage[data-frame="{index}"][data-exact="true"]')
        page.wait_for_timeout(1500)
        page.screenshot(path=file)

    show(60, f"{work}/page.png")
    drag((165, 45), (625, 630))
    page.click("#tool-scribble")
    page.click("#kind-option >> text=Background")
    for stroke in (((172, 330), (215, 520)), ((240, 320), (300, 560)), ((190, 560), (260, 600)),
                   ((330, 610), (400, 610)), ((290, 290), (310, 500))):
        drag(*stroke)
    show(60, f"{work}/page_before.png")
    page.click("#propagate")
    page.wait_for_selector("#stop", state="visible")
    page.wait_for_selector("#propagate", state="visible", timeout=900_000)
    show(100, f"{work}/page_after.png")
server.terminate()
PYTHON

"$PYTHON" - "$WORK" <<'PYTHON'
import io
import re
import sys
from base64 import b64decode
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

# The report starts with the video with the lowest score, and has three worst frames of each.
report = (work / "scores/report.html").read_text(encoding="utf-8")
worst = re.findall(r'alt="worst [^>]*base64,([^"]+)"', report)[::3][:3]
row = Image.new("RGB", (3 * 400, 225))
for index, data in enumerate(worst):
    row.paste(Image.open(io.BytesIO(b64decode(data))), (index * 400, 0))
save([row], "failures.jpg", row.width)

pages = [Image.open(work / f"page_{name}.png").convert("RGB") for name in ("before", "after")]
pair = Image.new("RGB", (2 * 1280 + 12, 800), "white")
for index, page in enumerate(pages):
    pair.paste(page, (index * (1280 + 12), 0))
save([pair], "annotate.jpg", 1500)
PYTHON
