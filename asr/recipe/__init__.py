"""Recipes: the steps from a data set to a table of results, each done again only when its inputs have changed."""
