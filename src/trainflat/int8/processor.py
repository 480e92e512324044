"""What this processor can do with 8-bit integers, and what it cannot."""

from __future__ import annotations

import platform
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

__all__ = ["Processor", "parse", "processor"]

CPUINFO = Path("/proc/cpuinfo")
UNREAD = "what this processor has for int8 could not be read, so only the timing tells what it gains here"
WITHOUT_VNNI = "this processor has no VNNI, so int8 gains little over float32 here"
SATURATES = (
    "without VNNI sums of two int8 products are kept in 16 bits and may saturate: 7-bit weights (reduce_range) are safe"
)


@dataclass(frozen=True)
class Processor:
    """The instructions that decide how int8 runs.

    Attributes:
        kind: ``"x86"``, ``"arm"`` or ``"other"``.
        vnni: Whether four int8 products are summed in 32 bits by one instruction (AVX512-VNNI, AVX-VNNI; on ARM: DotProd).
        known: Whether this could be read; if not, the rest is assumed to be absent.
    """

    kind: str
    vnni: bool
    known: bool = True

    @property
    def saturates(self) -> bool:
        """Whether kernels that multiply unsigned by signed bytes add pairs of products in 16 bits.

        255 * 127 + 255 * 127 = 64,770 is above 32,767; with 7-bit weights 255 * 63 * 2 = 32,130 is not.
        """
        return self.kind == "x86" and not self.vnni

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know before trusting int8 here; nothing where all is well."""
        if not self.known:
            return (UNREAD,)
        said = () if self.vnni else (WITHOUT_VNNI,)
        return (*said, SATURATES) if self.saturates else said


@cache
def processor() -> Processor:
    """This machine's."""
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return Processor("arm", vnni=True)  # every processor of Apple's own has DotProd
    try:
        return parse(CPUINFO.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return parse("")


def parse(cpuinfo: str) -> Processor:
    """From the text of ``/proc/cpuinfo``; of several processors the first counts.

    Example:
        >>> parse("flags : sse2 avx2 avx512f avx512_vnni")
        Processor(kind='x86', vnni=True, known=True)
        >>> parse("flags : sse2 avx2").saturates, parse("Features : fp asimd asimddp").warnings
        (True, ())
    """
    for line in cpuinfo.splitlines():
        name, _, words = line.partition(":")
        flags = set(words.split())
        if name.strip() == "flags":
            return Processor("x86", vnni=bool(flags & {"avx512_vnni", "avx_vnni"}))
        if name.strip() == "Features":
            return Processor("arm", vnni="asimddp" in flags)
    kind = {"x86_64": "x86", "AMD64": "x86", "aarch64": "arm", "arm64": "arm"}.get(platform.machine(), "other")
    return Processor(kind, vnni=False, known=False)
