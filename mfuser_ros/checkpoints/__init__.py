"""Weights on disk: our model files, published checkpoints, recorded goldens."""

from mfuser_ros.checkpoints.store import ModelCard, ModelFile, load_model, locate, save_model

__all__ = ["ModelCard", "ModelFile", "load_model", "locate", "save_model"]
