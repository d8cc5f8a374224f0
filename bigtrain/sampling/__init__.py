"""From a trained generator to pictures: truncation laws, interpolation, grids, image files. Knows no network."""
