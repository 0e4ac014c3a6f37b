"""The lab as a pack of the host, for tests only: never part of what users install."""

import torch
from comfy_api.latest import ComfyExtension, io

from . import arch, exact, meter

arch.register()


class ExactModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        kind = io.Combo.Input("parameterisation", options=list(exact.PARAMETERISATIONS))
        batch_size = io.Int.Input("batch_size", default=1, min=1, max=4096)
        prompts = [io.Conditioning.Output(display_name=name) for name in exact.PROMPTS]
        outputs = [io.Model.Output(), *prompts, io.Latent.Output()]
        return meter.schema("ExactModel", inputs=[kind, batch_size], outputs=outputs)

    @classmethod
    def execute(cls, parameterisation: str, batch_size: int) -> io.NodeOutput:
        prompts = [exact.conditioning(name) for name in exact.PROMPTS]
        empty = torch.zeros(batch_size, *exact.SHAPE)
        return io.NodeOutput(exact.build(parameterisation), *prompts, {"samples": empty})


class LabExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return [ExactModel, meter.MeteredModel, meter.Tell, meter.Alive]


async def comfy_entrypoint() -> LabExtension:
    return LabExtension()
