"""MG_LoadCopyDetector: SSCD, a network that recognises copies (Pizzi et al., 2202.10261)."""

from __future__ import annotations

from comfy_api.latest import io

from ..adapter.copy_detector import SOURCE, load_sscd
from ..adapter.folders import DETECTORS, model_file, model_files
from ..adapter.input_checks import check_inputs
from . import schema

NAME = "Load Copy Detector (SSCD)"
PREPARATIONS = ["as SSCD", "AMG as released"]
OFFICIAL = "sscd_disc_mixup.torchscript.pt"


class LoadCopyDetector(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = model_files(DETECTORS)
        return schema.node(
            search_aliases=["SSCD", "copy detection", "copydetection", "similarity model"],
            node_id="MG_LoadCopyDetector",
            display_name=NAME,
            category=schema.CATEGORY,
            description="Loads SSCD, a network trained to recognise copies even when they are cropped, recoloured or "
            "edited. The weights of SSCD are not part of this pack, so download them and put the file into "
            "models/copy_detection.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=files or [OFFICIAL],
                    default=OFFICIAL if not files or OFFICIAL in files else files[0],
                    tooltip="A file in models/copy_detection: the official sscd_disc_mixup.torchscript.pt, or its "
                    "weights in a safetensors file. Press R after adding the file.",
                ),
                io.Combo.Input(
                    "preparation",
                    options=PREPARATIONS,
                    default=PREPARATIONS[0],
                    optional=True,
                    tooltip="How images are prepared for the network. As SSCD: the way that the authors of SSCD "
                    "recommend. AMG as released: prepares images as the code of Chen et al. does. Choose `AMG as "
                    "released` only if you use the preset `Chen 2024, AMG as released` on AMG Guidance.",
                ),
            ],
            outputs=[
                schema.Descriptor.Output(
                    display_name="descriptor", tooltip="The copy detector, for the nodes that make or load references."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str | None) -> bool:
        return True  # `execute` says what is wrong: a branch that fails here is left out without a word

    @classmethod
    def fingerprint_inputs(cls, file: str, preparation: str = PREPARATIONS[0]) -> str:
        facts = model_file(DETECTORS, file, NAME).stat()
        return f"{facts.st_mtime_ns} {facts.st_size} {preparation}"

    @classmethod
    @check_inputs
    def execute(cls, file: str, preparation: str = PREPARATIONS[0]) -> io.NodeOutput:
        released = preparation == PREPARATIONS[1]
        return io.NodeOutput(load_sscd(model_file(DETECTORS, file, NAME, SOURCE), NAME, released))


NODES = [LoadCopyDetector]
