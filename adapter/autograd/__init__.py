"""Gradients through a model that ComfyUI loaded for inference."""
