"""The program that runs once per host and decides what happens there."""
