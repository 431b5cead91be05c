"""What our baselines give on the weights and inputs of a reference folder, one file per published metric."""

from . import umtscore, viclip

# Prefix of the names of a reference -> what gives its arrays, and the largest difference that is allowed of one.
PRODUCERS = {"viclip": (viclip.viclip, viclip.limit_of), "umtscore": (umtscore.umtscore, umtscore.limit_of)}
