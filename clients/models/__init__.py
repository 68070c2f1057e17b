"""Models: one file is one model, with one name on the command line.

A model is a function ``(inputs, outputs, **own parameters with defaults) -> torch.nn.Module`` marked
``@offer("model")``; ``inputs`` is the shape of one sample, ``outputs`` the size of the model's output. Initial weights
are drawn from torch's global generator, which the caller seeds by a key (``fl_sim.rng.keyed_globals``). Engines may run
one module with many clients' weights at once (``torch.func.vmap``), so that no layer works in place.

No model uses BatchNorm but cnn-bn, which is for FedBN, and conv4, that of few-shot learning, unless --model.norm says
otherwise: its statistics are those of a batch, and a client's batches are not distributed like the whole data, so that
training and evaluation disagree. K. Hsieh, A. Phanishayee, O. Mutlu, P. Gibbons, "The Non-IID Data Quagmire of
Decentralized Machine Learning", ICML 2020, section 5, arXiv:1910.00189, measure the loss of accuracy, and show that
GroupNorm, which normalises each sample separately, avoids it.
"""
