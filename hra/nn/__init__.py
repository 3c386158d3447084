"""Layers of one utterance that know no task, no depth and no checkpoint.

Every layer maps `hidden_TD` to `hidden_TD`; callers `vmap` over utterances.
Where an adapter may reach inside, the layer calls `tap(site, input, output)`,
which returns the output to go on with.
"""
