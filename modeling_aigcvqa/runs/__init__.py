"""Score any number of clips into a folder that an interrupted run goes on with; every clip is accounted for."""
