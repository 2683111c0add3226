"""Names of data sets to images: procedural twins, folders, and the prepared store that feeds training."""
