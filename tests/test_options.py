"""Every option once: what derives from the table, and what a mistake says wherever it is made."""

import numpy as np
import pytest
import torch

from pplx_embed_integrations.errors import InputError
from pplx_embed_integrations.options import SideOptions, options_of

DTYPE = options_of(SideOptions)["dtype"]


@pytest.mark.parametrize("dtype", ["float16", "half", "fp16", torch.float16, torch.half])
def test_float16_is_refused_with_the_reason(dtype: object) -> None:
    with pytest.raises(InputError, match=r'overflows .* use "bfloat16" .* or "float32"'):
        DTYPE.checked("dtype", dtype)


@pytest.mark.parametrize("dtype", ["float64", "bf16", "", None, 32, np.float32])
def test_an_unknown_dtype_names_the_known(dtype: object) -> None:
    with pytest.raises(InputError, match='use "auto", "float32" or "bfloat16"'):
        DTYPE.checked("dtype", dtype)


def test_dtypes_by_name_and_as_torch_has_them() -> None:
    assert [DTYPE.checked("dtype", d) for d in ("auto", "float32", torch.float32, torch.bfloat16)] == [
        "auto",
        "float32",
        "float32",
        "bfloat16",
    ]
