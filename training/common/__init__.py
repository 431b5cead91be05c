"""Code shared by the stages and by several of the folders beside this one."""
