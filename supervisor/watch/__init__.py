"""Sensors: each turns one outside thing into something the loop can look at. They decide nothing."""
