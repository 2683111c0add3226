"""Names of data sets to images: twins, folders, and the prepared store that feeds training."""
