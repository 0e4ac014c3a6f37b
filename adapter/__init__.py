"""The only package that touches ComfyUI's internals. When ComfyUI changes, repair it here."""
