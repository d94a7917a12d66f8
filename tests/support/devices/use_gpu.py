"""Uses the first GPU in steps that lines on standard input name. Needs a Python that has PyTorch.

`hold BYTES` takes memory, and its name is printed when that is done. `work` computes until standard input
ends, and its name is printed when it begins.
"""

import sys
import threading

import torch


def main() -> None:
    # Makes CUDA and its libraries take their own memory before anything is held.
    factor = torch.ones(4096, 4096, dtype=torch.float16, device="cuda")
    product = factor @ factor
    torch.cuda.synchronize()
    print("ready", flush=True)
    held = []
    for line in sys.stdin:
        step, *size = line.split()
        if step == "hold":
            held.append(torch.empty(int(size[0]), dtype=torch.uint8, device="cuda"))
            torch.cuda.synchronize()
            print("hold", flush=True)
        else:
            print("work", flush=True)
            break
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    while not ended.is_set():
        for _ in range(50):
            torch.matmul(factor, factor, out=product)
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
