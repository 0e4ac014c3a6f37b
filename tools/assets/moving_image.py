"""README's moving image, and with it the thumbnail of the template: a run of Memorization Guard (Simple) on the lab.

.host/python tools/assets/moving_image.py
"""

import io

from PIL import Image

from support.frontend.page import Page, window
from support.paths import ROOT
from support.server import Server
from tools.assets.templates import TEMPLATES
from tools.assets.write_templates import write_thumbnail

NAME, OUT = "Memorization Guard (Simple)", ROOT / "docs" / "img" / "guard.webp"
WIDTH, HEIGHT, SCALE = 1200, 1340, 0.85  # of the window
LEFT, TOP = 80, 110  # beside the menus
GUARD = 440  # the guard and what follows it: the loader and the prompt are left out
SMALL = (900, 1005)
FRAMES, HELD = 10, (1500, 350, 5000)  # of the run, evenly; milliseconds of the first, of each, of the last


def main() -> None:
    path = ROOT / "workflows" / f"{NAME}.json"
    with Server() as server, Page(server) as page:
        page.load_workflow(path)
        template = TEMPLATES[NAME]()
        for change in template.on_lab:
            page.mg("setOne", *change)
        with window(page, WIDTH, HEIGHT, menus=True):
            page.mg("show", SCALE, LEFT / SCALE - GUARD, TOP / SCALE)
            page.settle()

            def shot() -> Image.Image:
                file = io.BytesIO(page.tab.screenshot())
                return Image.open(file).convert("RGB").resize(SMALL, Image.Resampling.LANCZOS)

            shots = [shot()]

            def pause() -> None:
                page.tab.wait_for_timeout(2000)
                shots.append(shot())

            entry = server.wait(page.queue(), 1800, pause)
            page.settle()
            last = shot()
        write_thumbnail(page, template, entry, path.with_suffix(".jpg"))
    begin, *run = shots
    frames = [begin, *run[:: max(1, len(run) // FRAMES)], last]
    durations = [HELD[0], *[HELD[1]] * (len(frames) - 2), HELD[2]]
    frames[0].save(OUT, save_all=True, append_images=frames[1:], duration=durations, loop=0, quality=55, method=6)
    print(f"{OUT}: {len(frames)} frames, {OUT.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
