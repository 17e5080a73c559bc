"""What every room uses: settings and presets, notices, whole files, devices. Imports no other room."""
