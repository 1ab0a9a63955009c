"""Kettle & Leaf: a tea shop, as an ordinary Django project. Nothing in its settings knows it is audited."""
