"""The commands, one file each or per group, named as they are typed."""
