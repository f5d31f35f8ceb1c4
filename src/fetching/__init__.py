"""From a link to a folder: downloads, archives, and the layout that the doors read."""
