"""What the text of a compiled program says: its collectives, and the traffic of its memory."""

import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

# The kinds of collective operations, as the compiled program names them.
KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
# The size of the dtypes in bytes, where it is not 4.
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2, "f64": 8, "s64": 8}
# The operations that name or group arrays, and move none.
_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "opt-barrier")
_OPERATION = re.compile(r"\s*(?:ROOT )?%?([\w.\-]+) = (.*?) ([a-z][a-z\-]*)\((.*?)\)(?:,|$)")


def collectives(text: str) -> list[dict[str, Any]]:
    """The collective operations of a compiled program, as often as its loops run them.

    >>> collectives("ENTRY %main () -> f32[8] {\\n  %r = f32[8]{0} all-reduce(%x)\\n}")
    [{'kind': 'all-reduce', 'count': 1, 'bytes': 32}]

    Args:
      text: The program, in XLA's text form.

    Returns:
      The "kind", the "count", and the "bytes" of all results, of each kind that occurs. Those of a
      reduce-scatter are of what goes in: a TPU's program has an all-reduce of it in a computation
      named all-reduce-scatter, and no device receives more than its part.
    """
    count: Counter[str] = Counter()
    moved: Counter[str] = Counter()
    for kind, size, times in _collectives(text):
        count[kind] += times
        moved[kind] += times * size
    return [{"kind": kind, "count": count[kind], "bytes": moved[kind]} for kind in sorted(count)]


def _collectives(text: str) -> Iterator[tuple[str, int, int]]:
    """Yields the kind, the bytes of the results, and the count of each collective operation."""
    bodies = _computations(text)
    times = {name: 1 for name in bodies}
    for lines in bodies.values():  # The train step has no loop inside a loop.
        for line in lines:
            if loop := re.search(r" while\(.*body=%?([\w.\-]+)", line):
                times[loop[1]] = _trips(line, bodies)
    for name, lines in list(bodies.items()):
        for called in re.findall(r"calls=%?([\w.\-]+)", "\n".join(lines)):
            times[called] = max(times.get(called, 1), times[name])
    seen: set[str] = set()  # An operation that is fused with others occurs once in each part.
    for name, lines in bodies.items():
        for line in lines:
            channel = re.search(r"channel_id=\d+", line)
            if channel and channel[0] in seen:
                continue
            found = re.search(rf"= (.*?) ({'|'.join(KINDS)})(-start)?\(", line)
            if found:
                if channel:
                    seen.add(channel[0])
                shapes = re.findall(r"(\w+)\[([\d,]*)\]", found[1])
                sizes = [_size(dtype, dims) for dtype, dims in shapes]
                # An asynchronous one has as many operands as results, and the results come last.
                half = len(sizes) // 2 if found[3] and found[2] != "all-reduce" else 0
                kind = "reduce-scatter" if name.startswith("all-reduce-scatter") else found[2]
                yield kind, sum(sizes[half:]), times[name]


def hbm_bytes(text: str) -> int:
    """The bytes that a compiled program reads from a chip's memory (HBM) and writes to it.

    Each operation reads its operands and writes its results, as often as loops run it. Arrays that
    the compiler has placed elsewhere, such as in the memory of a TPU's core, do not count, and an
    asynchronous copy counts once. Of an operand that is only sliced, the slices count.

    The compiler's own sum, "bytes accessed", has arrays in all memories, and such copies twice.

    >>> hbm_bytes("ENTRY %main () -> f32[8] {\\n  ROOT %r = f32[8]{0:S(1)} add(%x, %x)\\n}")
    0

    Args:
      text: The program, in XLA's text form.
    """
    entry = re.search(r"^ENTRY %?([\w.\-]+)", text, re.MULTILINE)
    return _traffic(entry[1], _computations(text)) if entry else 0


def _traffic(name: str, bodies: dict[str, list[str]]) -> int:
    """The bytes read and written by one run of a computation, with the loops and calls in it."""
    arrays: dict[str, list[tuple[int, bool]]] = {}
    total = 0
    for line in bodies[name]:
        if not (found := _OPERATION.match(line)):
            continue
        result, shapes, kind, operands = found.groups()
        arrays[result] = written = _arrays(shapes)
        called = re.search(r"(?:body|to_apply)=%?([\w.\-]+)", line)
        if kind in ("while", "call") and called:
            times = _trips(line, bodies) if kind == "while" else 1
            total += times * _traffic(called[1], bodies)
        elif kind == "slice-start":  # Its result is the whole operand, and the slice.
            total += written[1][0] * sum(in_hbm for _, in_hbm in written[:2])
        elif kind.endswith("-start") and kind != "all-reduce-start":  # Operands, and results.
            total += _in_hbm(written)
        elif not (kind in _FREE or kind.endswith("-done") or "Bitcast" in line):
            total += _in_hbm(written)
            for position, operand in enumerate(re.findall(r"%([\w.\-]+)", operands)):
                total += _read(_in_hbm(arrays.get(operand, [])), line, position, bodies)
    return total


def _in_hbm(arrays: list[tuple[int, bool]]) -> int:
    """The bytes of those arrays that lie in the chip's memory."""
    return sum(size for size, in_hbm in arrays if in_hbm)


def _read(size: int, line: str, position: int, bodies: dict[str, list[str]]) -> int:
    """The bytes that an operation reads of an operand: of one that a fusion slices, the slices.

    Args:
      size: The bytes of the operand.
      line: The operation's line.
      position: The position of the operand.
      bodies: The lines of each computation by its name.
    """
    called = re.search(r" fusion\(.*calls=%?([\w.\-]+)", line)
    body = "\n".join(bodies[called[1]]) if called and size else ""
    operand = re.search(rf"%?([\w.\-]+) = \S+ parameter\({position}\)", body)
    if not operand:
        return size
    users = [found.groups() for found in map(_OPERATION.match, body.splitlines()) if found]
    users = [user for user in users if f"%{operand[1]}," in f"{user[3]},"]
    if not users or any(kind not in ("dynamic-slice", "slice") for _, _, kind, _ in users):
        return size
    return min(size, sum(each for _, shapes, _, _ in users for each, _ in _arrays(shapes)))


def _arrays(shapes: str) -> list[tuple[int, bool]]:
    """The size in bytes of each array, and whether it lies in the chip's memory.

    >>> _arrays("(f32[2,3]{1,0:T(8,128)}, bf16[8]{0:T(256)S(1)})")
    [(24, True), (16, False)]
    """
    found = re.findall(r"(\w+)\[([\d,]*)\](?:\{([^}]*)\})?", shapes)
    return [(_size(dtype, dims), "S(" not in layout) for dtype, dims, layout in found]


def _trips(loop: str, bodies: dict[str, list[str]]) -> int:
    """How often a loop's body runs: as noted on its line, or by the number that is its limit.

    >>> limit = ["%c = s32[]{:T(128)} constant(4)", "ROOT %lt = pred[] compare(%i, %c)"]
    >>> _trips("%w = (s32[]) while(%t), condition=%upto, body=%b", {"upto": limit})
    4

    Args:
      loop: The line of the loop.
      bodies: The lines of each computation by its name.
    """
    if noted := re.search(r'"known_trip_count":\{"n":"(\d+)"', loop):
        return int(noted[1])
    condition = re.search(r"condition=%?([\w.\-]+)", loop)
    lines = "\n".join(bodies.get(condition[1], [])) if condition else ""
    limits = re.findall(r"= s32\[\]\S* constant\((\d+)\)", lines)
    return int(limits[0]) if len(limits) == 1 else 1


def _computations(text: str) -> dict[str, list[str]]:
    """The lines of each computation of a program by its name."""
    bodies: dict[str, list[str]] = {}
    name = ""
    for line in text.splitlines():
        opened = re.match(r"(?:ENTRY )?%?([\w.\-]+) .*\{$", line)
        if opened:
            name = opened[1]
            bodies[name] = []
        elif name:
            bodies[name].append(line)
    return bodies


def _size(dtype: str, dims: str) -> int:
    """The size in bytes of an array; its dimensions are text such as '2,3'."""
    size = _BYTES.get(dtype, 4)
    for dim in filter(None, dims.split(",")):
        size *= int(dim)
    return size
