# Copyright (c) monai_sliceinterp contributors
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""Work that is done beside the main thread, one piece at a time."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

__all__ = ["BackgroundWork"]


class BackgroundWork:
    """One thread that does a piece of work while the caller prepares the next one.

    A second piece waits until the first is done, so that no more than one is ever held. Leaving the block waits for the
    last one. What a piece of work raises is raised where the caller waits for it.

    Example:
        >>> done = []
        >>> with BackgroundWork() as work:
        ...     work.start(lambda: done.append(1))
        ...     work.start(lambda: done.append(2))
        >>> done
        [1, 2]
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="background")
        self._last: Future[None] | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Wait for what was started before, then start ``work``."""
        self.wait()
        self._last = self._pool.submit(work)

    def wait(self) -> None:
        """Wait for what was started; what it raised is raised here, once."""
        last, self._last = self._last, None
        if last is not None:
            last.result()

    def __enter__(self) -> BackgroundWork:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.wait()
        finally:
            self._pool.shutdown()  # waits as well
