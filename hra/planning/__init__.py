"""What a run would take, without its devices, its data or its backbone's numbers.

Enters: a configuration and a number of devices. Leaves: parameters, bytes and FLOPs;
no array is made.
"""
