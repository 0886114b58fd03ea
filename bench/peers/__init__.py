"""What runs beside our proxy under the same load."""
