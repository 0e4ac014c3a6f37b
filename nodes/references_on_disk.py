"""MG_SaveReferences and MG_LoadReferences: sets as safetensors in models/memorization_references."""

from __future__ import annotations

import dataclasses
from typing import Any

from comfy_api.latest import io

from ..adapter.copy_detector import as_descriptor
from ..adapter.errors import GuardError
from ..adapter.folders import CHOOSE, REFERENCES, model_file, model_files, model_folder, new_model_file
from ..adapter.input_checks import check_inputs
from ..adapter.live_view import LiveView
from ..drawing.node_views import text_view
from ..mitigation.references.reference_set import ReferenceSet
from ..mitigation.references.weights_fingerprint import same_weights
from ..mitigation.wording import counted
from ..references.reference_file import load_references, save_references
from ..references.report import report
from . import schema

SAVE, LOAD = "Save References", "Load References"


class SaveReferences(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema.node(
            search_aliases=["store references", "write references"],
            node_id="MG_SaveReferences",
            display_name=SAVE,
            category=schema.CATEGORY,
            description="Saves a set of references in models/memorization_references, so that you need not make it "
            "again. The file contains the captions and small images of the references, so share it with care.",
            inputs=[
                schema.References.Input("references", tooltip="The set to save."),
                io.String.Input(
                    "name",
                    default="references",
                    tooltip="File name without an ending. Use a slash for subfolders, such as loras/my style.",
                ),
                io.Boolean.Input(
                    "overwrite",
                    default=False,
                    tooltip="On: replaces an existing file of this name. Off: stops the run if such a file exists.",
                ),
            ],
            outputs=[schema.References.Output(display_name="references", tooltip="The same set.")],
            is_output_node=True,
        )

    @classmethod
    @check_inputs
    def execute(cls, references: ReferenceSet, name: str, overwrite: bool) -> io.NodeOutput:
        path = new_model_file(REFERENCES, name, SAVE)
        if path.exists() and not overwrite:
            raise GuardError(
                f"{SAVE}: `name` {name!r} exists in {path.parent}. Type another name, or turn on overwrite."
            )
        try:
            save_references(references, path)
        except ValueError as error:
            raise GuardError(f"{SAVE}: {error}. Free some space, or choose another `name`.") from None
        text = f"{counted(len(references), 'reference')} in {path.relative_to(model_folder(REFERENCES)).as_posix()}"
        return io.NodeOutput(references, ui={"text": (text,), **LiveView().finish(text_view(text))})


class LoadReferences(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema.node(
            search_aliases=["saved references", "read references"],
            node_id="MG_LoadReferences",
            display_name=LOAD,
            category=schema.CATEGORY,
            description="Reads a set that Save References wrote.",
            inputs=[
                io.Combo.Input(
                    "file",
                    options=[CHOOSE, *model_files(REFERENCES)],
                    default=CHOOSE,
                    tooltip="A file in models/memorization_references. Press R after adding one.",
                ),
                schema.descriptor_input(
                    "Needed only if `metric` was descriptor when the set was made. Connect the copy detector or CLIP "
                    "vision model with which the set was made."
                ),
            ],
            outputs=[
                schema.References.Output(
                    display_name="references",
                    tooltip="The set of references. Connect it to AMG Guidance or Copy Check.",
                ),
                io.Int.Output(display_name="count", tooltip="How many references the set holds."),
                io.String.Output(
                    display_name="report", tooltip="What the set holds, and which captions occur more than once."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: str | None) -> bool:
        return True  # `execute` says what is wrong: a branch that fails here is left out without a word

    @classmethod
    def fingerprint_inputs(cls, file: str, **_: Any) -> str:
        facts = model_file(REFERENCES, file, LOAD).stat()
        return f"{facts.st_mtime_ns} {facts.st_size}"

    @classmethod
    @check_inputs
    def execute(cls, file: str, descriptor: Any = None) -> io.NodeOutput:
        path = model_file(REFERENCES, file, LOAD, "Save References writes them.")
        try:
            references = load_references(path)
        except ValueError as error:
            raise GuardError(f"{LOAD}: `file` {file!r} cannot be used: {error}.") from None
        if references.metric == "descriptor" and descriptor is not None:
            network = as_descriptor(descriptor, LOAD)
            same = same_weights(references.descriptor_hash, network.fingerprint)
            if same is None and network.name == references.descriptor_name:
                # Another network than the set's finds no copies, and nobody would notice: refuse what is unknown.
                raise GuardError(
                    f"{LOAD}: an older version of this pack saved the set, so it is unknown whether `descriptor` made "
                    "it. Make the set again."
                )
            if not same:
                raise GuardError(
                    f"{LOAD}: `descriptor` is {network.name}, but the set was made with "
                    f"{references.descriptor_name or 'another one'}. Connect that one, or make the set again."
                )
            references = dataclasses.replace(references, descriptor=network)
        text = report(references)
        return io.NodeOutput(references, len(references), text, ui=LiveView().finish(text_view(text)))


NODES = [SaveReferences, LoadReferences]
