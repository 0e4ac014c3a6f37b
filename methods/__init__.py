"""What the nodes run: the papers' methods on ComfyUI models, through the adapter."""
