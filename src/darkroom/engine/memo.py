"""What was encoded lately, by content, within a number of bytes."""

from collections import OrderedDict
from collections.abc import Callable, Hashable

from torch import Tensor


class Memo:
    """Keeps what was used last. What is taken from it is what would be computed anew, bit for bit, and not to be
    written to."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: OrderedDict[Hashable, Tensor] = OrderedDict()
        self._bytes = 0

    def get(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """The tensor under `key`, which names all that it depends on."""
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        made = make()
        if made.nbytes <= self._max_bytes:
            self._kept[key] = made
            self._bytes += made.nbytes
        while self._bytes > self._max_bytes:
            _, dropped = self._kept.popitem(last=False)
            self._bytes -= dropped.nbytes
        return made
