"""implicit_attr: which training dynamics make explanations robust?"""

__version__ = '0.1.0'
