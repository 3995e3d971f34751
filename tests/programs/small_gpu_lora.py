"""`jobs.lora` on a GPU with little memory, see small_gpu.py; its section is read from the run directory."""

from small_gpu import install

from jobs.lora import main

if __name__ == "__main__":
    install()
    main([])
