"""What the models that people pass in can do, and how each kind is called."""
