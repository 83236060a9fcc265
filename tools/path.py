"""Count the functions of this package that a flat text passes, from the call to its vector.

    python tools/path.py [--all]

The second call counts: the first one loads. Frames are told apart by file and qualified name, as `sys.setprofile` sees
them; up to Python 3.11 a comprehension has a frame of its own, so both numbers are said. The thread in which the
network computes is counted by itself: what it passes depends on the device.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from pathlib import Path
from types import FrameType

from pplx_embed_integrations.langchain import PplxEmbeddings

PACKAGE = Path(__file__).parents[1] / "pplx_embed_integrations"
passed: set[tuple[bool, str, str]] = set()


def note(frame: FrameType, event: str, _: object) -> None:
    """Remember a function of the package, and whether the network's thread is in it."""
    code = frame.f_code
    if event == "call" and code.co_filename.startswith(str(PACKAGE)):
        name = getattr(code, "co_qualname", f"{code.co_name}:{code.co_firstlineno}")  # new in Python 3.11
        computing = threading.current_thread().name.startswith("pplx-embed-core")
        passed.add((computing, str(Path(code.co_filename).relative_to(PACKAGE)), name))


threading.setprofile(note)  # threads that the first call starts compute in the second
embeddings = PplxEmbeddings("miniature")
embeddings.embed_documents(["a flat text"])
passed.clear()
sys.setprofile(note)
embeddings.embed_documents(["a flat text"])
sys.setprofile(None)
for computing, where in ((False, "to the network and back"), (True, "in the network's thread")):
    found = [(file, name) for thread, file, name in sorted(passed) if thread == computing]
    functions = [(file, name) for file, name in found if not name.endswith("comp>") and "<genexpr>" not in name]
    files = Counter(file for file, _ in found)
    print(f"{where}: {len(functions)} functions ({len(found)} frames with comprehensions) in {len(files)} files")
    for file, name in found if "--all" in sys.argv else []:
        print(f"  {file}  {name}")
