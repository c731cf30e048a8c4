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

"""Part of a network that ONNX Runtime computes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from monai_sliceinterp.extras import require_package

__all__ = ["OnnxNetwork"]


class OnnxNetwork(nn.Module):
    """Network that ONNX Runtime computes on the CPU, by as many threads as PyTorch uses.

    Args:
        path: the graph; it has one input and one output.

    Raises:
        ImportError: if ONNX Runtime is not installed.
        ValueError: if the file is no graph that it can run.

    Attributes:
        metadata: texts that the graph carries, by name.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "graph.onnx"
        >>> _ = torch.onnx.export(nn.ReLU(), (torch.ones(2),), file, dynamo=False)
        >>> OnnxNetwork(file)(torch.tensor([-1.0, 2.0]))
        tensor([0., 2.])
    """

    def __init__(self, path: str | Path) -> None:
        super().__init__()
        require_package("onnxruntime", "the engine onnx-int8", "onnx")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # cores may have other work
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # its errors have no base class of their own
            raise ValueError(f"{path}: is not a graph that ONNX Runtime can run (damaged?).") from error
        self.metadata: dict[str, str] = self.session.get_modelmeta().custom_metadata_map

    def forward(self, image: Tensor) -> Tensor:
        """Compute the network's output, float32, from a float input of any type."""
        array = np.ascontiguousarray(image.detach().float().numpy())
        return torch.from_numpy(self.session.run(None, {self.session.get_inputs()[0].name: array})[0])
