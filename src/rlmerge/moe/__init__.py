"""Mixtures of experts made of dense models: a base's attention, the experts' MLPs, and a router from prompts."""

from .config import GATES
from .run import Mixture, assemble_moe
from .targets import TARGETS

__all__ = ["GATES", "TARGETS", "Mixture", "assemble_moe"]
