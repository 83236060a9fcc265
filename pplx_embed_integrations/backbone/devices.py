"""Which device and which arithmetic a model runs in.

Knows what torch can say about the machine; must not know models or texts.
"""

from __future__ import annotations

import torch

from ..errors import EncodingError, InputError

_SMALL = 50_000_000
"""Parameters under which `"auto"` stays with float32: such a model is fast anyway, and then exact anywhere."""


def resolve_device(device: str | None) -> torch.device:
    """Return the device that is asked for, or by default the best there is: CUDA, then MPS, then the CPU.

    Raises:
        InputError: The machine has no such device.

    Example:
        >>> resolve_device("cpu")
        device(type='cpu')
    """
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        wanted = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InputError(f'device={device!r} is unknown; use "cpu", "cuda", "cuda:1" or "mps"') from error
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device={device!r} is not there; this machine has {torch.cuda.device_count()} CUDA devices")
    if wanted.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f'device={device!r} is not there; this machine or this torch has no MPS: use device="cpu"')
    try:
        torch.zeros(1, device=wanted).cpu()
    except (RuntimeError, AssertionError) as error:  # the latter from a torch built without that kind of device
        raise InputError(f'device={device!r} cannot be used ({error}); use "cpu", "cuda", "cuda:1" or "mps"') from error
    return wanted


def resolve_dtype(name: str, *, device: torch.device, parameters: int) -> torch.dtype:
    """Return the arithmetic that a dtype's name means on a device.

    `"auto"` is bfloat16 where the processor computes in it natively and the model is large enough to gain by it,
    else float32.

    Args:
        name: `"auto"`, `"float32"` or `"bfloat16"`.
        device: Where the model runs.
        parameters: How many weights it has.

    Example:
        >>> resolve_dtype("auto", device=torch.device("cpu"), parameters=1000)
        torch.float32
    """
    if name != "auto":
        return torch.bfloat16 if name == "bfloat16" else torch.float32
    return torch.bfloat16 if parameters >= _SMALL and _native_bfloat16(device) else torch.float32


def _native_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        # Not public; where torch drops them, float32 is the answer that is always right.
        probes = (getattr(torch.cpu, name, None) for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
        return any(probe is not None and probe() for probe in probes)
    return False


def default_batch_tokens(device: torch.device, width: int) -> int:
    """Return how many tokens a batch has by default: enough to fill the device, few enough to stay in its caches.

    A CPU of many cores gets enough for each to have a share of its own; a narrow model's tokens take less room.

    Args:
        device: Where the model runs.
        width: Its hidden size.

    Example:
        >>> default_batch_tokens(torch.device("mps"), 1024)
        8192
    """
    if device.type == "cpu":
        return max(2048, 512 * torch.get_num_threads()) * max(1, 1024 // width)
    return {"mps": 8192}.get(device.type, 32768)


def is_out_of_memory(error: Exception) -> bool:
    """Whether a device had too little memory: MPS says it in a plain RuntimeError, and so does the CPU, in other words.

    Example:
        >>> is_out_of_memory(RuntimeError("MPS backend out of memory")), is_out_of_memory(ValueError("out of memory"))
        (True, False)
    """
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError)
        and not isinstance(error, EncodingError)
        and any(words in str(error).lower() for words in ("out of memory", "can't allocate memory"))
    )


def release_memory() -> None:
    """Give back what torch keeps of an accelerator's memory for later, so that a smaller batch finds room."""
    torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()
