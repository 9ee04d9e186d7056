"""The parts of the `sot` command. None of them is imported by the rest of the package."""
