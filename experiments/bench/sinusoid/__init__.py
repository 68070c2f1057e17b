"""The recipe ``sinusoid-reptile`` beside a plain PyTorch loop of the same steps."""
