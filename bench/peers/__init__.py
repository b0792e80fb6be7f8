"""Other people's code, called with the inputs of a core: `bench` races it, `tests/oracles` compares with it.

`make setup` installs the packages.  Each peer says which package it comes from and how its conventions
differ from those of a core; nothing of theirs is copied here.

    from bench.peers import PEERS, installed

    peer = PEERS["transformers torch_chunk_gated_delta_rule"]
    native = peer.prepare(tensors)      # query, key, value, rate, retain of a core -> the peer's own inputs
    read, state = peer.run(**native)    # only this belongs inside a clock
    read, state = peer(**tensors)       # all of it, differentiable, in the shapes of a core
"""

from bench.peers.cores import PEERS, Peer
from bench.peers.layers import LAYERS
from bench.peers.outside import installed, version, widened

__all__ = ["LAYERS", "PEERS", "Peer", "installed", "version", "widened"]
