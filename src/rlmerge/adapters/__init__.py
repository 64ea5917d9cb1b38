"""Adapters as results: sums of adapters kept as one, brought to a smaller rank, or found in a full model."""

from rlmerge.adapters.extract import extract_lora
from rlmerge.adapters.merge import write_adapter_merge
from rlmerge.adapters.result import AdapterResult, ModuleResult

__all__ = ["AdapterResult", "ModuleResult", "extract_lora", "write_adapter_merge"]
