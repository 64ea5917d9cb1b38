"""The processor to compile for, and machine code for it, made with LLVM or kept from an earlier process."""

from __future__ import annotations

import threading

import llvmlite.binding as llvm
from llvmlite import __version__ as llvmlite_version

from rlmerge.frozen import frozen

from . import code_cache

_lock = threading.Lock()


@frozen
class Host:
    """The processor to compile for: LLVM's name of it and the features it has.

    ``packs`` are the bits of vectors whose chosen lanes it moves together, 512 or 256, or 0.
    """

    cpu: str
    features: str
    converts_float16: bool
    packs: int = 0


def find_host() -> Host:
    """The processor this process runs on."""
    features = llvm.get_host_cpu_features()
    native = not llvm.get_process_triple().startswith(("x86", "i386", "i686")) or bool(features.get("f16c"))
    packs = 512 if features.get("avx512f") else 256 if features.get("avx2") else 0
    return Host(llvm.get_host_cpu_name(), features.flatten(), native, packs)


_PIPELINE = "2: sroa, instcombine, simplifycfg; opt 2"
"""What is done to the IR; code of another pipeline is not ours."""


def compile_kernel(text: str, host: Host) -> tuple[llvm.ExecutionEngine, int]:
    """Machine code for ``@kernel``. The IR is vectorised already: it needs registers for its slots and a clean-up."""
    with _lock:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        target = llvm.Target.from_default_triple()
        machine = target.create_target_machine(cpu=host.cpu, features=host.features, opt=2, jit=True)
        version = ".".join(map(str, llvm.llvm_version_info))
        name = code_cache.key(_PIPELINE, llvmlite_version, version, machine.triple, host.cpu, host.features, text)
        code = code_cache.load(name)
        # Code that is there already takes the place of what a module of nothing would be compiled to.
        module = llvm.parse_assembly("") if code else _optimized(text, machine)
        engine = llvm.create_mcjit_compiler(module, machine)
        made: list[bytes] = []
        engine.set_object_cache(lambda _, built: made.append(built), lambda _: code)
        engine.finalize_object()
        address = engine.get_function_address("kernel")
    if made:
        code_cache.save(name, made[0])
    return engine, address


def _optimized(text: str, machine: llvm.TargetMachine) -> llvm.ModuleRef:
    parsed = llvm.parse_assembly(text)
    parsed.verify()
    passes = llvm.create_new_function_pass_manager()
    passes.add_sroa_pass()
    passes.add_instruction_combine_pass()
    passes.add_simplify_cfg_pass()
    builder = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options())
    for function in parsed.functions:
        if not function.is_declaration:
            passes.run(function, builder)
    return parsed
