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

"""A PACS node, ``sliceinterp serve``: series come by C-STORE, their interpolated series go on to another node.

Nothing here imports torch or MONAI: each series is interpolated in a process of its own, by the module
:mod:`monai_sliceinterp.cli.node_child`.
"""
