"""From image files, IMAGE batches and latents to a reference set, and back from disk."""
