"""Tests of the drawings. (A package, so that its modules may be called what they test.)"""
