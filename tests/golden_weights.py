"""The weights that the golden numbers were computed with: every tensor drawn from its own name."""
import zlib

import numpy as np
import torch


def fill_weights(network, seed=0):
    """Fill ``network``, whose state-dict names are the published ones, in place."""
    state = network.state_dict()
    for name, old in state.items():
        if not old.dtype.is_floating_point:
            continue
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        if old.dim() == 4:
            new = rng.standard_normal(old.shape).astype("f4") * (2.0 / old[0].numel()) ** 0.5
            if ".conv3." in name:
                new *= 0.3
            if name == "mask_rgb_encoder.conv1.weight":
                new[:, 3:] *= 4
            if "key_proj" in name:
                new *= 0.35
            if name == "decoder.pred.weight":
                new *= 0.25
        elif name.endswith(("running_var", "weight")):
            new = np.ones(old.shape, "f4")
        else:
            new = 0.01 * rng.standard_normal(old.shape).astype("f4")
        state[name] = torch.from_numpy(new)
    network.load_state_dict(state)
    return network
