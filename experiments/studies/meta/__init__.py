"""Studies of meta-learning and personal models. The modules beside this folder have what all studies share."""
