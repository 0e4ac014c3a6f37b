"""The one room that touches ComfyUI's internals. A change in the host is repaired here."""
