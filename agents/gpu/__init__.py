"""The GPU agent, outside of cells: breaks the NVIDIA GPUs of the machine that it runs on."""
