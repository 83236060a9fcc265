"""Which backends there are, by the name that the option `backend` gives them.

Knows names; must not import what stands behind them. Another backend is one file with a class that has the methods of
`backbone.backends.base.Backend`, and a line here with its name in the type.
"""

from __future__ import annotations

from typing import Literal

BackendName = Literal["torch", "openvino"]

BACKENDS: dict[str, str] = {
    "torch": "pplx_embed_integrations.backbone.backends.torch:TorchBackend",
    "openvino": "pplx_embed_integrations.backbone.backends.openvino:OpenVinoBackend",
}
"""Each one's module and class, imported when it is first asked for."""
