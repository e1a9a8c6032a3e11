"""The infinite-width limit of a neural network, exactly, on your own data."""
