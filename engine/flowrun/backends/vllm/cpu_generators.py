"""Seeds of requests on CPUs: vLLM 0.32 ends its engine where it reads the prompt of one in several steps.

It takes back what such a step has sampled by moving the generator back, by the offset that a generator of CUDA has; one
of a CPU has none, and raises. Such steps come before the first token that is kept, so going back is to begin anew. (A
request that was preempted goes on with other random numbers than it would have.)
"""

from typing import Any


def mend_cpu_generators() -> None:
    """Give the generators of vLLM's requests in this process, and in those forked from it, a way back."""
    from vllm.v1.worker import gpu_input_batch

    torch, CachedRequestState = gpu_input_batch.torch, gpu_input_batch.CachedRequestState
    if getattr(CachedRequestState, "mended_by_flowrun", False):
        return

    class CpuGenerator(torch.Generator):  # type: ignore[misc, name-defined]  # vLLM is not typed here
        """A generator of a CPU that goes back to its seed."""

        def get_offset(self) -> int:
            """Return the offset, which is not counted."""
            return 0

        def set_offset(self, offset: int) -> None:
            """Begin anew."""
            self.manual_seed(self.initial_seed())

    prepare = CachedRequestState.__post_init__

    def with_way_back(state: Any) -> None:
        prepare(state)
        if state.generator is not None and state.generator.device.type == "cpu":
            seed = state.generator.initial_seed()
            state.generator = CpuGenerator()
            state.generator.manual_seed(seed)

    CachedRequestState.__post_init__ = with_way_back
    CachedRequestState.mended_by_flowrun = True
