"""The model as a guest of other tools, a module each; none is imported by the package itself."""
