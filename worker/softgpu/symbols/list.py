#!/usr/bin/env python3
"""Prints the functions of libcuda, libnvrtc and libcublas that CUDA 11.4 has.

    python3 worker/softgpu/symbols/list.py ~/.cargo/registry/src/*/cudarc-0.19.10 > worker/softgpu/symbols/cuda-11.4.txt

cudarc's bindings are made from the headers of each version of CUDA, and a function is compiled for those
versions alone whose headers have it: it stands below a `cfg(any(feature = "cuda-11040", ...))` unless all
have it. 11.4 is the oldest of these versions, and what the last driver of a K80 runs.
"""

import re
import sys
from pathlib import Path

CFG = re.compile(r"#\[cfg\((.*)\)\]")
FUNCTION = re.compile(r"pub unsafe fn ((?:cu|nvrtc)\w+)\(")
NOT_CUDA = "culib"

for library in ["driver", "nvrtc", "cublas"]:
    names, condition = set(), None
    for line in (Path(sys.argv[1]) / "src" / library / "sys/mod.rs").read_text().splitlines():
        if found := CFG.fullmatch(line):
            condition = found[1]
            if not condition.startswith("any(feature = "):
                condition = None
            continue
        if (found := FUNCTION.match(line)) and found[1] != NOT_CUDA:
            if condition is None or '"cuda-11040"' in condition:
                names.add(found[1])
        condition = None
    print("\n".join(sorted(names)))
