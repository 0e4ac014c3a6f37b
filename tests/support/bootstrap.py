"""ComfyUI on the CPU in this process, in a folder of its own, and the repository by its name as a package.

Import this module before any other module of ComfyUI: command line and folders are read once.
"""

import atexit
import ctypes
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path

if importlib.util.find_spec("comfy") is None:
    raise ImportError("No ComfyUI on the path: use `make test` or `.host/python -m pytest tests`.")

import torch

from support.in_process import configure
from support.paths import PACK, ROOT

BASE = Path(tempfile.mkdtemp(prefix="memorization-guard-tests-"))
atexit.register(shutil.rmtree, BASE, ignore_errors=True)

# Two threads wait for each other on a busy machine: the exact model is then 20 to 100 times slower.
torch.set_num_threads(int(os.environ.get("MG_TEST_THREADS", "1")))
configure(BASE, "--cpu")
if sys.platform == "linux":
    # Let malloc keep what is freed, and take nothing by mmap: in a virtual machine, the first use of a page that the
    # system gives costs more than the arithmetic on it. malloc.h: M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX.
    for option, value in ((-1, 2**31 - 1), (-2, 2**26), (-4, 0)):
        getattr(ctypes.CDLL(None), "mallopt", lambda *_: None)(option, value)

if PACK not in sys.modules:  # whatever the repository's folder is called
    spec = importlib.util.spec_from_file_location(PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    assert spec is not None and spec.loader is not None
    sys.modules[PACK] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules[PACK])
