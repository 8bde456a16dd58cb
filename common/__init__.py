"""What every part uses and none owns: devices, processes, files, photos, plots."""
