"""Files on this machine: what they are, their bytes by place, members of zip archives."""
