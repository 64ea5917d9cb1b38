"""What is on disk: model directories read without trust and without copies, output directories that appear complete."""

from rlmerge.checkpoint.files import InputFile
from rlmerge.checkpoint.header import Header, read_header
from rlmerge.checkpoint.journal import JournalEntry
from rlmerge.checkpoint.layout import OutputTensor, ShardPlan, plan_shards
from rlmerge.checkpoint.manifest import Manifest, read_manifest
from rlmerge.checkpoint.model import Checkpoint, open_checkpoint
from rlmerge.checkpoint.partial import PartialDirectory
from rlmerge.checkpoint.shard_writer import ShardWriter
from rlmerge.checkpoint.source import ArraySource, Extent, Source
from rlmerge.checkpoint.verify import VerifyResult, verify

__all__ = [
    "ArraySource",
    "Checkpoint",
    "Extent",
    "Header",
    "InputFile",
    "JournalEntry",
    "Manifest",
    "OutputTensor",
    "PartialDirectory",
    "ShardPlan",
    "ShardWriter",
    "Source",
    "VerifyResult",
    "open_checkpoint",
    "plan_shards",
    "read_header",
    "read_manifest",
    "verify",
]
