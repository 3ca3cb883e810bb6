"""Interop: tfmtl's models inside other libraries of the TensorFlow ecosystem.

Nothing is imported here, as each library is optional or needs settings of its own:
import the module of the library that you use, such as `tfmtl.interop.tfrs`.
"""
