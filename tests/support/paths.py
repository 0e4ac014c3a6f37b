"""Where things are in the checkout. No host module is imported here."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LAB = ROOT / "lab"  # the lab checkpoint of Stable Diffusion's size, its judge and its training images
LAB_CHECKPOINT = LAB / "lab512.safetensors"
SMALL_LAB = ROOT / "tests" / "support" / "small_lab"  # the small one, a fast fixture of the tests
SMALL_CHECKPOINT = SMALL_LAB / "small_lab.safetensors"
LAB_PACK = ROOT / "tests" / "support" / "lab_pack"  # what both need of the host; nodes for tests and demos only
CHECK_PACK = ROOT / "tests" / "support" / "check_pack"  # the nodes of support.remote_host
PACK_NAME, LAB_NAME = "memorization-guard", "memorization_guard_lab"  # folder names in custom_nodes
PACK = "memorization_guard"  # the name under which tests import the repository
ROOMS = ("adapter", "drawing", "methods", "mitigation", "nodes", "references")  # with the pack's own code
SOURCES = [ROOT / "__init__.py", *sorted(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))]
