"""Write the templates into `workflows/`; with --thumbnails also a .jpg of each, from a run of the file on the lab.

.host/python tools/assets/write_templates.py --thumbnails
"""

import argparse

from PIL import Image, ImageOps

from lab.copies import training_pairs
from support.frontend.page import Page
from support.frontend.workflow import WorkflowError, write
from support.paths import ROOT
from support.server import Server
from tools.assets.templates import TEMPLATES
from tools.assets.templates.references import MIRRORED
from tools.assets.thumbnails import write_thumbnail
from tools.assets.wires import lead_around


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="parts of names; all templates otherwise")
    parser.add_argument("--thumbnails", action="store_true", help="run each template and write its thumbnail")
    options = parser.parse_args()
    with Server() as server, Page(server) as page:
        _, image = training_pairs()[0]
        ImageOps.mirror(Image.fromarray(image)).save(server.base / "input" / MIRRORED)
        for name, make in TEMPLATES.items():
            if options.names and not any(part in name for part in options.names):
                continue
            template, path = make(), ROOT / "workflows" / f"{name}.json"
            write(page, template.graph, path, lead_around)
            print(path)
            if options.thumbnails:
                entry = template.run(page, template.on_lab)
                if overlaps := page.overlaps():
                    raise WorkflowError(f"{path}: after a run these nodes cover each other: {overlaps}")
                write_thumbnail(page, template, entry, path.with_suffix(".jpg"))


if __name__ == "__main__":
    main()
