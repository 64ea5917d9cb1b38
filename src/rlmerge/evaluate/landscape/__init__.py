"""The surroundings of models in weight space, on items whose loss is exact: pictures, barriers, sharpness."""
