"""Floor 4: where ranks, processes and disks meet the maths. The only importer of accelerate, deepspeed and
torch.distributed."""
