"""What our baselines give on the weights and inputs of a reference folder, one file per published metric."""

from .viclip import viclip

# Prefix of the names of a reference -> what gives its arrays.
PRODUCERS = {"viclip": viclip}
