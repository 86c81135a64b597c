"""Tests of the command line. (A package, so that its modules may be called what they test.)"""
