"""The sections of a report, one a file, each of which collects its data and renders them."""
