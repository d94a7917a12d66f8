"""Stands in for SGLang's compiled CPU kernels: the names that SGLang imports, none of which can be called.

There is no CPU build of sglang-kernel to install. With this module in its place SGLang takes its paths in
plain PyTorch: slow, and no measure of SGLang. A test fixture; only SGLang's own Python imports it.
"""

import sys
from collections.abc import Callable
from typing import Any, NoReturn

# engines/sglang/engine.py looks for this line in the server's log.
SAID = "sgl_kernel is bench's stand-in without kernels: no speed measured here is one of SGLang"
print(SAID, file=sys.stderr, flush=True)


def _without_kernel(name: str) -> Callable[..., NoReturn]:
    def call(*args: Any, **fields: Any) -> NoReturn:
        raise NotImplementedError(f"sgl_kernel.{name}: bench's stand-in of sgl_kernel has no kernels")

    return call


# What sglang 0.5.23 imports on a CPU for dense text models, speculative decoding included.
assign_draft_cache_locs_contiguous_cpu = _without_kernel("assign_draft_cache_locs_contiguous_cpu")
assign_extend_cache_locs_cpu = _without_kernel("assign_extend_cache_locs_cpu")
assign_req_to_token_pool_cpu = _without_kernel("assign_req_to_token_pool_cpu")
build_tree_kernel_efficient_cpu = _without_kernel("build_tree_kernel_efficient_cpu")
copy_all_layer_kv_cache_cpu = _without_kernel("copy_all_layer_kv_cache_cpu")
fill_accept_out_cache_loc_cpu = _without_kernel("fill_accept_out_cache_loc_cpu")
fill_bonus_tokens_cpu = _without_kernel("fill_bonus_tokens_cpu")
rotate_input_ids_cpu = _without_kernel("rotate_input_ids_cpu")
verify_tree_greedy_cpu = _without_kernel("verify_tree_greedy_cpu")
